//! What happens to bindings beside REGISTER: ends, roll-backs, operators, restarts.

use super::*;

#[test]
fn bindings_end_in_time_and_are_told_to_the_sink() {
    let mut bench = Bench::new();
    bench
        .register(
            "c",
            1,
            "Contact: <sip:a@h1>;expires=100, <sip:a@h2>;expires=200",
        )
        .unwrap();
    bench
        .register("c", 2, "Contact: <sip:a@h1>;expires=150")
        .unwrap();
    let ids: Vec<_> = bench.alice().iter().map(|b| b.id).collect();
    bench.pass(100);
    assert_eq!(bench.service.expire(bench.now, 10), [], "it was refreshed");
    bench.pass(49);
    assert_eq!(
        bench.register("q", 1, "Subject: x").unwrap()[0],
        "<sip:a@h1>;expires=1"
    );
    bench.pass(1);
    assert_eq!(
        bench.alice().len(),
        1,
        "over at once, before the timer comes by"
    );
    let ended = bench.service.expire(bench.now, 10);
    assert_eq!(
        ended.iter().map(Change::contact_id).collect::<Vec<_>>(),
        ids[..1]
    );
    assert!(matches!(ended[0].kind, ChangeKind::Delete(_)));
    bench.pass(1000);
    assert_eq!(bench.service.expire(bench.now, 10).len(), 1);
    assert_eq!(bench.service.counts(None), Counts::default());
}

#[test]
fn expiry_goes_round_the_shards_a_few_at_a_time() {
    let mut bench = Bench::new();
    for n in 0..100 {
        let fields = format!("Call-ID: c\r\nCSeq: 1 REGISTER\r\nContact: <sip:u@h{n}>\r\n");
        let Ok(Planned::Save(plan)) = bench.plan(&format!("u{n}@example.com"), &fields) else {
            panic!("not a plan");
        };
        bench.service.commit(&plan, bench.now).unwrap();
    }
    assert_eq!(
        bench.service.counts(Some(T)),
        Counts {
            aors: 100,
            bindings: 100
        }
    );
    bench.pass(601);
    let mut rounds = 0;
    while bench.service.counts(None).bindings > 0 {
        assert!(bench.service.expire(bench.now, 7).len() <= 7);
        rounds += 1;
        assert!(rounds < 40, "never ends");
    }
    assert!(rounds >= 15);
}

#[test]
fn what_came_between_plan_and_commit_counts() {
    let bench = Bench::new();
    let fields = |cseq| format!("Call-ID: c\r\nCSeq: {cseq} REGISTER\r\nContact: <sip:a@h>\r\n");
    let Ok(Planned::Save(early)) = bench.plan("alice@example.com", &fields(1)) else {
        panic!("not a plan");
    };
    bench.register("c", 2, "Contact: <sip:a@h>").unwrap();
    let refused = bench.service.commit(&early, bench.now).unwrap_err();
    assert_eq!(refused.status, 500);
    assert_eq!(bench.alice()[0].cseq, 2);
}

#[test]
fn a_commit_that_is_not_durable_can_be_taken_back() {
    let bench = Bench::new();
    bench
        .register("c", 1, "Contact: <sip:a@h1>, <sip:a@h2>")
        .unwrap();
    let before = bench.alice();
    let save = |cseq: u32, contact: &str| {
        let fields = format!("Call-ID: c\r\nCSeq: {cseq} REGISTER\r\n{contact}\r\n");
        let Ok(Planned::Save(plan)) = bench.plan("alice@example.com", &fields) else {
            panic!("not a plan");
        };
        bench.service.commit(&plan, bench.now).unwrap()
    };
    let grown = save(2, "Contact: <sip:a@h3>");
    bench.service.settle(&grown, false);
    assert_eq!(bench.alice(), before);
    let emptied = save(3, "Expires: 0\r\nContact: *");
    assert_eq!(bench.alice().len(), 0);
    bench.service.settle(&emptied, false);
    assert_eq!(bench.alice(), before);
    let overtaken = save(4, "Contact: <sip:a@h3>");
    save(5, "Contact: <sip:a@h4>");
    bench.service.settle(&overtaken, false);
    let mut contacts: Vec<_> = bench.alice().iter().map(|b| b.contact.clone()).collect();
    contacts.sort();
    assert_eq!(
        contacts,
        ["sip:a@h1", "sip:a@h2", "sip:a@h4"].map(Box::from)
    );
}

#[test]
fn tenants_never_see_each_other() {
    let bench = Bench::new();
    bench.register("c", 1, "Contact: <sip:a@h>").unwrap();
    let other = TenantId(1);
    assert_eq!(bench.service.lookup(other, &alice(), bench.now).len(), 0);
    assert!(bench.service.remove(other, &alice(), bench.now).is_none());
    assert_eq!(bench.service.counts(Some(other)), Counts::default());
    let mut seen = 0;
    bench.service.dump(Some(other), |_, _, _| seen += 1);
    assert_eq!(seen, 0);
    bench.service.dump(Some(T), |tenant, aor, bindings| {
        assert_eq!((tenant, aor, bindings.len()), (T, &alice(), 1));
        seen += 1;
    });
    assert_eq!(seen, 1);
}

#[test]
fn an_operator_adds_and_removes_contacts() {
    let mut bench = Bench::new();
    let contact = |uri: &str, expires| NewContact {
        uri: uri.into(),
        q: 300,
        expires,
        path: vec![],
        methods: None,
    };
    let add = |bench: &Bench, uri, expires| {
        bench
            .service
            .add(T, &alice(), contact(uri, expires), bench.now)
    };
    add(&bench, "sip:a@gw", None).unwrap();
    add(&bench, "sip:a@GW", None).unwrap();
    add(&bench, "sip:a@other", Some(10)).unwrap();
    assert_eq!(bench.alice().len(), 2);
    assert_eq!(add(&bench, "no uri", None).unwrap_err().status, 400);
    bench.pass(1_000_000_000);
    let left = bench.alice();
    assert_eq!(left.len(), 1, "the permanent one stays");
    assert_eq!(left[0].expires, Binding::PERMANENT);
    let remove = |uri| bench.service.remove_contact(T, &alice(), uri, bench.now);
    assert!(remove("sip:a@nobody").is_none());
    let commit = remove("sip:%61@gw").unwrap();
    assert!(commit.bindings.is_empty());
    assert_eq!(commit.changes.len(), 2, "the ended one goes along");
    assert_eq!(bench.service.counts(None), Counts::default());
}

#[test]
fn a_restart_keeps_ids_order_and_ends() {
    let bench = Bench::new();
    let contacts =
        "Contact: <sip:a@h1>;q=0.5;expires=100, <sip:a@h2>;expires=300, <sip:a@h3>;q=0.7";
    bench.register("c", 1, contacts).unwrap();
    let rows: Vec<_> = bench
        .alice()
        .iter()
        .map(|b| LocationRow::of(&alice(), b))
        .collect();
    let mut foreign = rows[0].clone();
    foreign.domain = "elsewhere.example".into();

    let mut again = Bench::new();
    again.pass(200);
    let tenant = |domain: &str| (domain == "example.com").then_some(T);
    let loaded = again
        .service
        .load(rows.into_iter().chain([foreign]), again.now, tenant, |_| {
            Some((ListenerId(0), None))
        });
    assert_eq!(
        loaded,
        Loaded {
            bindings: 2,
            ended: 1,
            foreign: 1
        }
    );
    let listed = again.register("q", 1, "Subject: x").unwrap();
    assert_eq!(
        listed,
        ["<sip:a@h2>;expires=100", "<sip:a@h3>;expires=400;q=0.7"]
    );
    let known: Vec<_> = again.alice().iter().map(|b| b.id).collect();
    again.register("new", 1, "Contact: <sip:a@h4>").unwrap();
    let fresh = again.alice()[0].id;
    assert!(
        !known.contains(&fresh) && fresh > 3,
        "ids go on behind the table's"
    );
    again.pass(1000);
    assert_eq!(again.service.expire(again.now, 10).len(), 3);
}
