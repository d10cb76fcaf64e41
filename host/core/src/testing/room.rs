//! How many transactions there may be: of a tenant, and in all.

use super::*;
use crate::account::UNIT;
use crate::policy::Reply;
use crate::stack::Counts;

/// Two tenants with room for so many transactions together, and half as many each.
fn crowded(transactions: u32) -> Rig {
    overcommitted(transactions, None)
}

/// The same with a limit for each.
fn overcommitted(transactions: u32, each: Option<u32>) -> Rig {
    let mut spec = spec();
    spec.tenants.push(TenantSpec {
        id: TenantId(1),
        name: "work".into(),
        domains: vec!["work.example".into()],
        stateless: vec![],
        transactions: None,
        quota: Default::default(),
    });
    for tenant in &mut spec.tenants {
        tenant.transactions = each;
    }
    // Whoever writes a To tag is in a dialog, then.
    spec.record_route.sign = false;
    spec.transactions = transactions;
    let mut rig = Rig::with(spec, |_, _| Ruling::Drop);
    rig.judge = None;
    rig
}

/// A request to the other tenant, or within a dialog.
fn at_work(method: &str, branch: &str) -> String {
    request_to(method, "sip:bob@work.example", branch, "")
}

fn in_dialog(method: &str, branch: &str) -> String {
    request(method, branch, "To: <sip:bob@home.example>;tag=b1\r\n")
}

fn refused(rig: &mut Rig, reason: &str) {
    let [no] = rig.take_n();
    assert_eq!(no.first_line(), format!("SIP/2.0 503 {reason}"));
    // A tenant's own limit makes nobody else wait.
    let wait = (reason == "Too Many Transactions").then_some("2");
    assert_eq!(no.header("Retry-After").as_deref(), wait);
}

#[test]
fn a_tenant_at_its_limit_is_refused_and_no_other() {
    let mut rig = crowded(4);
    for branch in ["1", "2"] {
        rig.receive(&request("INVITE", branch, ""), udp(ALICE));
    }
    let before = rig.stack.counts();
    for branch in ["3", "4"] {
        rig.receive(&request("INVITE", branch, ""), udp(ALICE));
        refused(&mut rig, "Too Many Transactions Of Tenant");
    }
    assert_eq!(rig.stack.counts(), before, "nothing is kept of them");
    assert_eq!(rig.asks.len(), 2);
    let tenant = TenantId(0);
    let full = Event::Full {
        tenant,
        its_own: true,
    };
    assert_eq!(rig.events.iter().filter(|event| **event == full).count(), 2);
    let account = |rig: &Rig, id| Arc::clone(&rig.settings.tenant(TenantId(id)).unwrap().account);
    assert_eq!(
        (account(&rig, 0).live(), account(&rig, 0).refused()),
        (2, 2)
    );
    // The ACK of a refusal is absorbed, what is in flight comes again as it likes.
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    assert_eq!(rig.first_lines(), ["SIP/2.0 100 Trying"]);
    rig.receive(&at_work("INVITE", "5"), udp(ALICE));
    assert_eq!(rig.take().len(), 0);
    assert_eq!(
        (account(&rig, 1).live(), account(&rig, 1).refused()),
        (1, 0)
    );
    // A CANCEL is never refused, and what it ends makes room.
    rig.receive(&request("CANCEL", "1", ""), udp(ALICE));
    let lines = rig.first_lines();
    assert_eq!(lines, ["SIP/2.0 200 OK", "SIP/2.0 487 Request Terminated"]);
    rig.receive(&request("ACK", "1", ""), udp(ALICE));
    rig.pass(33_000);
    rig.take();
    rig.receive(&request("INVITE", "6", ""), udp(ALICE));
    assert_eq!(rig.take().len(), 0);
    rig.finish();
}

#[test]
fn all_tenants_together_have_a_limit_too() {
    // Together they may have more than there is, but each is sure of its share.
    let mut rig = overcommitted(4, Some(4));
    for branch in ["1", "2", "3", "4"] {
        rig.receive(&request("MESSAGE", branch, ""), udp(ALICE));
    }
    for branch in ["5", "6"] {
        rig.receive(&at_work("MESSAGE", branch), udp(ALICE));
        assert_eq!(rig.take().len(), 0, "{branch}");
    }
    rig.receive(&at_work("MESSAGE", "7"), udp(ALICE));
    refused(&mut rig, "Too Many Transactions");
    rig.finish();
}

/// Whoever writes to one tenant, or to none, as if dialogs existed, takes no room of
/// another.
#[test]
fn requests_of_dialogs_that_never_were_hinder_no_other_tenant() {
    let mut rig = crowded(4);
    for branch in ["1", "2", "3", "4"] {
        rig.receive(&in_dialog("BYE", branch), udp(ALICE));
    }
    rig.take();
    for branch in ["5", "6"] {
        rig.receive(&at_work("MESSAGE", branch), udp(ALICE));
        assert_eq!(rig.take().len(), 0, "{branch}");
    }
    rig.finish();
}

/// What a policy or a callee adds to a small request counts as well.
#[test]
fn what_is_kept_of_answers_counts() {
    let mut rig = crowded(8);
    let live = |rig: &Rig| rig.settings.account.live();
    rig.receive(&request("MESSAGE", "1", ""), udp(ALICE));
    assert!(rig.answer(Ruling::Reply(Reply {
        headers: vec![("X-Much".into(), "x".repeat(3 * UNIT))],
        ..Reply::of(200)
    })));
    assert_eq!(live(&rig), 4);
    rig.receive(&request("MESSAGE", "2", ""), udp(ALICE));
    rig.take();
    rig.receive(&request("MESSAGE", "3", ""), udp(ALICE));
    refused(&mut rig, "Too Many Transactions Of Tenant");
    rig.finish();
    assert_eq!(live(&rig), 0);
}

#[test]
fn what_has_begun_has_as_much_room_again() {
    let mut rig = crowded(4);
    for branch in ["1", "2"] {
        rig.receive(&request("INVITE", branch, ""), udp(ALICE));
    }
    rig.receive(&in_dialog("BYE", "3"), udp(ALICE));
    assert_eq!(rig.take().len(), 0, "a call may end");
    // Three branches, and room for one.
    assert!(rig.answer(parallel(&[BOB, CAROL, "192.0.2.4:5060"])));
    let branches = rig.take();
    let branches = branches.iter().filter(|sent| sent.token.is_some());
    assert_eq!(branches.count(), 1);
    rig.receive(&in_dialog("BYE", "4"), udp(ALICE));
    refused(&mut rig, "Too Many Transactions Of Tenant");
    rig.finish();
}

#[test]
fn a_large_message_counts_as_several() {
    let mut rig = crowded(6);
    let large = request("MESSAGE", "1", &format!("X: {}\r\n", "x".repeat(4096)));
    rig.receive(&large, udp(ALICE));
    rig.receive(&large.replace("z9hG4bK1", "z9hG4bK2"), udp(ALICE));
    refused(&mut rig, "Too Many Transactions Of Tenant");
    rig.receive(&request("MESSAGE", "3", ""), udp(ALICE));
    assert_eq!(rig.take().len(), 0);
    rig.finish();
}

#[test]
fn transactions_count_on_when_the_settings_change() {
    let mut rig = crowded(4);
    for branch in ["1", "2"] {
        rig.receive(&request("MESSAGE", branch, ""), udp(ALICE));
    }
    let mut after = Settings::new(spec()).unwrap();
    after.succeed(&rig.settings);
    rig.settings = Arc::new(after);
    let tenant = rig.settings.tenant(TenantId(0)).unwrap();
    assert_eq!((tenant.account.live(), rig.settings.account.live()), (2, 2));
    rig.receive(&request("MESSAGE", "3", ""), udp(ALICE));
    assert_eq!(rig.settings.account.live(), 3);
    rig.finish();
    assert_eq!(rig.stack.counts(), Counts::default());
}

/// A retransmission that another worker sees at the same time, and a request that is
/// handled without a transaction, are nothing to be refused.
#[test]
fn what_needs_no_transaction_is_not_refused() {
    let mut rig = crowded(2);
    rig.receive(&request("INVITE", "1", ""), udp(ALICE));
    let ack = in_dialog("ACK", "2");
    rig.receive(&ack, udp(ALICE));
    rig.receive(&request("CANCEL", "9", ""), udp(ALICE));
    assert_eq!(rig.take().len(), 0);
    let stateless = rig.asks.iter().filter(|ask| ask.id().is_none());
    assert_eq!(stateless.count(), 2);
    rig.finish();
}
