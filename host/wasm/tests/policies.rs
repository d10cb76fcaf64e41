//! Well-behaved policies: what they read, what they stage, what comes out.

mod common;

use std::sync::Arc;

use bytes::Bytes;
use common::{INVITE, Tenant, field, reply, spec, verdict};
use sipbox_core::policy::{
    Armed, BranchCall, Destination, Edit, Effect, FailedTarget, Failure, HookInput, HookOutput,
    Target, UriTarget, Verdict,
};
use sipbox_sip::OwnedMessage;
use sipbox_wasm::{LoadError, PolicySpec};

fn target(id: u32) -> Target {
    let uri = UriTarget {
        uri: "sip:bob@10.0.0.8".into(),
        ..UriTarget::default()
    };
    Target {
        destination: Destination::Uri(uri),
        q: 1000,
        id,
        options: Vec::new(),
    }
}

#[test]
fn a_policy_routes_as_its_settings_say() {
    let settings = r#"{"table":{"bob":"sip:bob@10.0.0.8:5090"},"otherwise":404}"#;
    let mut tenant = Tenant::one("routes", settings);
    let Verdict::Relay(plan) = tenant.request(INVITE).unwrap() else {
        panic!("no relay")
    };
    let [group] = &plan.groups[..] else {
        panic!("{plan:?}")
    };
    let [target] = &group[..] else {
        panic!("{plan:?}")
    };
    let Destination::Uri(uri) = &target.destination else {
        panic!("{plan:?}")
    };
    assert_eq!(uri.uri, "sip:bob@10.0.0.8:5090");
    let other = tenant
        .request(&INVITE.replace("sip:bob@", "sip:carol@"))
        .unwrap();
    assert_eq!(reply(other).status, 404);
}

#[test]
fn settings_that_a_policy_refuses_are_an_error_with_its_text() {
    let errors = Tenant::try_new(vec![
        spec("routes", r#"{"otherwise":200}"#),
        spec("routes", "{}"),
        spec("routes", r#"{"tabel":{}}"#),
    ])
    .err()
    .unwrap();
    let [
        (0, LoadError::Settings(first)),
        (2, LoadError::Settings(second)),
    ] = &errors[..]
    else {
        panic!("{errors:?}");
    };
    assert!(first.contains("otherwise = 200"), "{first}");
    assert!(second.contains("tabel"), "{second}");
}

#[test]
fn a_policy_says_what_it_is() {
    let tenant = Tenant::one("routes", "{}");
    let [description] = tenant.chain.descriptions() else {
        panic!("one description")
    };
    assert_eq!(description.name, "guest-routes");
    assert_eq!(description.version, "0.1.0");
}

#[test]
fn facts_and_fields_arrive_as_they_are() {
    let mut tenant = Tenant::one("probe", r#"{"do":"facts"}"#);
    let reply = reply(tenant.request(INVITE).unwrap());
    for (name, value) in [
        ("X-Method", "INVITE"),
        ("X-Uri", "bob|example.org|5070"),
        ("X-From", "sip:alice@example.org|a1"),
        ("X-To", "sip:bob@example.org|"),
        ("X-Call-Id", "call-1@10.0.0.7"),
        ("X-Cseq", "314 INVITE"),
        ("X-Source", "198.51.100.9:5071"),
        ("X-Tenant", "acme"),
        ("X-Listener", "edge"),
        ("X-Now", "1790000000"),
        ("X-In-Dialog", "false"),
        ("X-Route-Param", "yes"),
        ("X-Unknown", "known to nobody"),
        ("X-Headers", "12"),
        ("X-Body", "5"),
    ] {
        assert_eq!(field(&reply, name), value, "{name}");
    }
}

#[test]
fn reads_show_the_message_as_it_entered_the_hook() {
    let mut tenant = Tenant::one("probe", r#"{"do":"reads-after-edits"}"#);
    let mut call = tenant.call(INVITE);
    let reply = reply(verdict(
        tenant.run(0, HookInput::Request, &mut call).unwrap(),
    ));
    assert_eq!(field(&reply, "X-Edited"), "ok");
    assert_eq!(field(&reply, "X-Uri"), "ok");
    assert_eq!(field(&reply, "X-Read"), "before");
    assert_eq!(
        field(&reply, "X-Read-Uri"),
        "sip:bob@example.org:5070;transport=udp"
    );
    // Variables are the policy's own: it sees what it set.
    assert_eq!(field(&reply, "X-Var"), "set");
    assert_eq!(
        call.edits,
        [
            Edit::SetHeader("X-Probe".into(), "after".into()),
            Edit::SetRequestUri("sip:other@example.org".into()),
        ]
    );
}

#[test]
fn the_next_policy_sees_the_edited_message_and_the_variables() {
    let mut tenant = Tenant::new(vec![
        spec("probe", r#"{"do":"edit-and-next"}"#),
        PolicySpec {
            name: Arc::from("second"),
            ..spec("probe", r#"{"do":"show-header"}"#)
        },
    ]);
    let mut call = tenant.call(INVITE);
    assert_eq!(
        verdict(tenant.run(0, HookInput::Request, &mut call).unwrap()),
        Verdict::Next
    );
    assert_eq!(call.edits.len(), 2);
    // What core does between two policies.
    let edited = INVITE
        .replace("X-Probe: before", "X-Probe: edited")
        .replace(
            "sip:bob@example.org:5070;transport=udp",
            "sip:edited@example.org",
        );
    call.request = OwnedMessage::parse(Bytes::from(edited)).unwrap();
    call.edits.clear();
    let reply = reply(verdict(
        tenant.run(1, HookInput::Request, &mut call).unwrap(),
    ));
    assert_eq!(field(&reply, "X-Saw"), "edited");
    assert_eq!(field(&reply, "X-Saw-Uri"), "sip:edited@example.org");
    assert_eq!(field(&reply, "X-Saw-Var"), "from the first");
}

#[test]
fn what_a_policy_stages_comes_back_with_its_verdict() {
    let mut tenant = Tenant::one("probe", r#"{"do":"stage-and-relay"}"#);
    let mut call = tenant.call(INVITE);
    let Verdict::Relay(plan) = verdict(tenant.run(0, HookInput::Request, &mut call).unwrap())
    else {
        panic!("no relay")
    };
    assert_eq!(
        plan.groups[0][0].destination,
        Destination::Registered("bob@example.org".into())
    );
    assert_eq!(plan.record_route, Some(Vec::new()));
    assert_eq!(
        call.armed,
        Armed {
            branch: false,
            reply: false,
            failure: true
        }
    );
    assert_eq!(
        call.edits,
        [Edit::SetHeader("X-Probe".into(), "staged".into())]
    );
    assert_eq!(
        call.state.vars[..],
        [("probe".to_owned(), "staged".to_owned())]
    );
    assert_eq!(
        call.state.route_params[..],
        [("probe".to_owned(), "staged".to_owned())]
    );
    let [Effect::Challenge(realm), Effect::RemoveLocation { aor }] = &call.effects[..] else {
        panic!("{:?}", call.effects);
    };
    assert!(realm.proxy && realm.strict_uri);
    assert_eq!(realm.name, "example.org");
    assert_eq!(aor, "bob@example.org");
}

#[test]
fn what_a_policy_stages_is_gone_when_it_traps() {
    let mut tenant = Tenant::one("probe", r#"{"do":"stage-and-panic"}"#);
    let mut call = tenant.call(INVITE);
    call.edits.push(Edit::RemoveHeader("X-Earlier".into()));
    call.state.vars.push(("probe".into(), "earlier".into()));
    let before = (call.state.clone(), call.edits.clone());
    let failure = tenant.run(0, HookInput::Request, &mut call).unwrap_err();
    assert_eq!(failure.name(), "trap", "{failure}");
    assert_eq!((call.state.clone(), call.edits.clone()), before);
    assert_eq!(call.armed, Armed::default());
    assert!(call.effects.is_empty(), "{:?}", call.effects);
    assert_eq!(
        call.request.as_ref().request_uri(),
        b"sip:bob@example.org:5070;transport=udp"
    );
}

#[test]
fn later_hooks_see_their_message_and_arguments() {
    let mut tenant = Tenant::one("probe", r#"{"do":"arm"}"#);
    let mut call = tenant.call(INVITE);
    assert_eq!(
        verdict(tenant.run(0, HookInput::Request, &mut call).unwrap()),
        Verdict::Next
    );
    assert_eq!(
        call.armed,
        Armed {
            branch: true,
            reply: true,
            failure: true
        }
    );

    let branch = |id| HookInput::Branch(BranchCall { target: target(id) });
    assert_eq!(
        tenant.run(0, branch(7), &mut call),
        Ok(HookOutput::Branch(true))
    );
    assert_eq!(call.edits, [Edit::SetHeader("X-Branch".into(), "7".into())]);
    assert_eq!(
        tenant.run(0, branch(13), &mut call),
        Ok(HookOutput::Branch(false))
    );

    call.edits.clear();
    for (status, forwarded) in [(180, true), (183, false)] {
        let response = format!(
            "SIP/2.0 {status} Progress\r\nVia: SIP/2.0/UDP 10.0.0.7\r\nCSeq: 1 INVITE\r\n\r\n"
        );
        call.response = Some(OwnedMessage::parse(Bytes::from(response)).unwrap());
        assert_eq!(
            tenant.run(0, HookInput::Reply, &mut call),
            Ok(HookOutput::Reply(forwarded))
        );
    }
    assert_eq!(
        call.edits[0],
        Edit::SetHeader("X-Reply".into(), "out-of-place".into()),
        "set-request-uri in on-reply is refused, not a trap"
    );

    let failure = Failure {
        status: 486,
        reason: "Busy Here".into(),
        failed: vec![
            FailedTarget {
                id: 1,
                uri: "sip:b@x".into(),
                status: 486,
            },
            FailedTarget {
                id: 2,
                uri: "sip:c@x".into(),
                status: 503,
            },
        ],
        cancelled: false,
    };
    let output = tenant
        .run(0, HookInput::Failure(failure), &mut call)
        .unwrap();
    let reply = reply(verdict(output));
    assert_eq!(reply.status, 486);
    assert_eq!(
        field(&reply, "X-Method"),
        "INVITE",
        "the message is the request"
    );
    assert_eq!(field(&reply, "X-Failed"), "1=486,2=503");
}

#[test]
fn a_hook_that_a_policy_does_not_export_is_absent() {
    let mut tenant = Tenant::one("routes", "{}");
    let mut call = tenant.call(INVITE);
    assert_eq!(
        tenant.run(0, HookInput::Reply, &mut call),
        Ok(HookOutput::Absent)
    );
}

#[test]
fn an_instance_serves_many_calls_and_is_never_shared() {
    let mut tenant = Tenant::new(vec![
        spec("probe", r#"{"do":"count"}"#),
        PolicySpec {
            name: Arc::from("second"),
            ..spec("probe", r#"{"do":"count"}"#)
        },
    ]);
    let count = |tenant: &mut Tenant, policy| {
        let mut call = tenant.call(INVITE);
        let output = tenant.run(policy, HookInput::Request, &mut call).unwrap();
        field(&reply(verdict(output)), "X-Calls").to_owned()
    };
    assert_eq!(count(&mut tenant, 0), "1");
    assert_eq!(count(&mut tenant, 0), "2");
    assert_eq!(
        count(&mut tenant, 1),
        "1",
        "another position, another instance"
    );
    let mut other = Tenant::one("probe", r#"{"do":"count"}"#);
    assert!(
        Arc::ptr_eq(
            &common::load("probe"),
            &common::engine().load_file(&common::guest("probe")).unwrap()
        ),
        "one compiled component"
    );
    std::mem::swap(&mut other.pools, &mut tenant.pools);
    assert_eq!(
        count(&mut other, 0),
        "1",
        "another tenant on the same worker"
    );
}

#[test]
fn instances_go_with_their_chain_and_when_they_rest() {
    use sipbox_core::time::WallTime;
    let mut tenant = Tenant::one("routes", "{}");
    let begin = common::facts().now;
    tenant.pools.warm(&tenant.chain, begin).unwrap();
    assert_eq!(tenant.pools.instances(), 1);
    tenant.pools.sweep(WallTime(begin.0 + 60_000));
    assert_eq!(tenant.pools.instances(), 1);
    tenant.pools.sweep(WallTime(begin.0 + 600_000));
    assert_eq!(tenant.pools.instances(), 0);
    tenant.request(INVITE).unwrap();
    assert_eq!(tenant.pools.instances(), 1);
    let Tenant {
        chain, mut pools, ..
    } = tenant;
    drop(chain);
    pools.sweep(begin);
    assert_eq!(pools.instances(), 0, "the chain is gone");
}

#[test]
fn lookup_answers_from_the_tenants_location_service() {
    let mut tenant = Tenant::one("probe", r#"{"do":"lookup"}"#);
    let found = reply(tenant.request(INVITE).unwrap());
    let contacts: Vec<_> = found
        .headers
        .iter()
        .map(|(_, value)| value.as_str())
        .collect();
    assert_eq!(contacts, ["sip:bob@10.0.0.8", "sip:bob@10.0.0.9"]);
}
