//! The rules of the load balancer, one test each, run on the test kit.
#![allow(
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests"
)]

use std::collections::{BTreeMap, BTreeSet};

use policy_load_balancer::LoadBalancer;
use serde_json::{Value, json};
use sipbox_guest::dialogs::CreateFlags;
use sipbox_guest::{Error, FailedTarget, Failure, Hooks, RouteOutcome, RouteSignature, Verdict};
use sipbox_testkit::{Call, Kit, Run, World};

fn three(algorithm: &str, max_calls: Option<u32>) -> Value {
    let target = |number: u32| {
        let mut target =
            json!({ "uri": format!("sip:192.0.2.{number}"), "name": format!("t{number}") });
        if let Some(most) = max_calls {
            target["max_calls"] = json!(most);
        }
        target
    };
    json!({ "algorithm": algorithm, "targets": [target(1), target(2), target(3)] })
}

fn kit(settings: &Value) -> Kit<LoadBalancer> {
    Kit::new(settings)
}

fn call(number: u32) -> Call {
    let call_id = format!("{number}-8181@192.0.2.10");
    Call::request("INVITE", "sip:bob@example.com").set("Call-ID", &call_id)
}

/// The next hop of the only target.
fn hop(run: &Run) -> String {
    let targets = run.targets().concat();
    let [target] = &targets[..] else {
        panic!("{targets:?}")
    };
    let (_, hop) = target.split_once(" via ").unwrap_or(("", target));
    hop.to_owned()
}

fn failed(status: u16) -> Failure {
    Failure {
        status,
        reason: String::new(),
        failed: vec![FailedTarget {
            id: 0,
            uri: "sip:bob@example.com".into(),
            status,
        }],
        cancelled: false,
    }
}

/// The last letter of the next hop's host.
fn letter(run: &Run) -> char {
    hop(run).chars().last().unwrap()
}

/// How many numbers a call took.
fn drawn<V>(run: &Run<V>) -> usize {
    let calls = run.recording.functions();
    let drawn = calls.iter().filter(|call| **call == "counter_sequence");
    drawn.count()
}

fn weighted(weights: [u32; 3], more: Value) -> Value {
    let target = |(name, weight)| json!({ "uri": format!("sip:host-{name}"), "weight": weight });
    let targets: Vec<Value> = ["a", "b", "c"]
        .into_iter()
        .zip(weights)
        .map(target)
        .collect();
    let mut settings = json!({ "targets": targets });
    let settings_of = settings.as_object_mut().unwrap();
    settings_of.extend(more.as_object().unwrap().clone());
    settings
}

#[test]
fn weights_hold_exactly_and_turns_are_mixed() {
    let kit = kit(&weighted([5, 1, 1], json!({})));
    let mut letters = String::new();
    for number in 0..14 {
        let run = kit.on_request(call(number));
        run.assert_record_route(true);
        // Without limits nothing is counted.
        assert!(run.leases.is_empty() && run.dialog.is_some());
        assert_eq!(drawn(&run), 1);
        letters.push(letter(&run));
    }
    assert_eq!(letters, "aabacaaaabacaa");
    let run = kit.on_request(call(14).in_dialog(RouteOutcome::Loose));
    assert_eq!((run.verdict.clone(), drawn(&run)), (Verdict::Next, 0));
    assert_eq!(letter(&kit.on_request(call(15))), 'a');
    assert_eq!(letter(&kit.on_request(call(16))), 'a');
    assert_eq!(letter(&kit.on_request(call(17))), 'b', "the third");
}

#[test]
fn a_target_without_weight_has_no_turn() {
    let kit = kit(&weighted([3, 1, 0], json!({})));
    let letters: String = (0..8).map(|n| letter(&kit.on_request(call(n)))).collect();
    assert_eq!(letters, "aabaaaba");
}

/// What one target cannot take falls to the others, by their weights.
#[test]
fn failed_calls_are_spread_by_weight_as_well() {
    let kit = kit(&weighted([5, 2, 1], json!({})));
    let mut second = BTreeMap::<char, u32>::new();
    for number in 0..24 {
        let run = kit.on_request(call(number));
        if letter(&run) == 'a' {
            let next = kit.on_failure(run.then(), &failed(503));
            assert_eq!(drawn(&next), 0, "the call has its turn");
            *second.entry(letter(&next)).or_default() += 1;
        }
    }
    assert_eq!(second, BTreeMap::from([('b', 10), ('c', 5)]));
}

#[test]
fn what_begins_no_dialog_goes_by_its_call_id_and_takes_no_turn() {
    let methods = json!({ "methods": ["INVITE", "MESSAGE", "SUBSCRIBE"] });
    let kit = kit(&weighted([1, 1, 1], methods));
    let message = |number: u32| {
        let call_id = format!("{number}@192.0.2.10");
        let message = Call::request("MESSAGE", "sip:bob@example.com");
        kit.on_request(message.set("Call-ID", &call_id))
    };
    let mut hops = BTreeMap::<String, u32>::new();
    for number in 0..300 {
        let run = message(number);
        assert_eq!(drawn(&run), 0);
        assert_eq!(hop(&run), hop(&message(number)), "the same again");
        *hops.entry(hop(&run)).or_default() += 1;
    }
    assert!(hops.values().all(|count| *count > 70), "{hops:?}");
    let subscribe = Call::request("SUBSCRIBE", "sip:bob@example.com");
    assert_eq!(letter(&kit.on_request(subscribe)), 'a');
    assert_eq!(letter(&kit.on_request(call(1))), 'b');
}

#[test]
fn turns_go_by_call_id_if_the_settings_say_so_or_nothing_can_be_counted() {
    let by_call_id = json!({ "algorithm": "call-id-hash" });
    let full = World::new().counters_fail(Error::Limit("counters".into()));
    for (settings, world, draws) in [
        (weighted([3, 1, 0], by_call_id), World::new(), 0),
        (weighted([3, 1, 0], json!({})), full, 1),
    ] {
        let kit = kit(&settings).in_world(world);
        let mut first = BTreeMap::<char, u32>::new();
        for number in 0..4000 {
            let run = kit.on_request(call(number));
            assert_eq!(drawn(&run), draws);
            *first.entry(letter(&run)).or_default() += 1;
        }
        assert_eq!(first.len(), 2, "{first:?}");
        assert!((2900..3100).contains(&first[&'a']), "{first:?}");
        // A call that is asked for credentials by a target comes again to it.
        let again = || letter(&kit.on_request(call(5)));
        assert_eq!(again(), again());
    }
}

#[test]
fn a_call_that_is_counted_is_a_dialog_and_names_its_target() {
    let kit = kit(&three("weighted-round-robin", Some(5)));
    let run = kit.on_request(call(1));
    let dialog = run.dialog.clone().expect("a dialog");
    assert!(dialog.wanted.contains(CreateFlags::BYE_ON_TIMEOUT));
    assert_eq!(run.armed, Hooks::FAILURE);
    let [lease] = &run.leases[..] else {
        panic!("{:?}", run.leases)
    };
    assert_eq!(lease.scope, "load-balancer");
    assert_eq!(run.vars["load-balancer.target"], lease.key);
    let number = lease.key.trim_start_matches('t');
    assert_eq!(hop(&run), format!("sip:192.0.2.{number}"));
    run.assert_host_calls(&[
        "view",
        "create_dialog",
        "counter_sequence",
        "acquire",
        "set_var",
        "set_var",
        "arm",
    ]);
}

#[test]
fn a_full_target_is_passed_over_and_when_all_are_full_it_is_503() {
    let settings = three("weighted-round-robin", Some(2));
    let kit = kit(&settings);
    let mut hops = BTreeMap::<String, u32>::new();
    for number in 0..6 {
        *hops.entry(hop(&kit.on_request(call(number)))).or_default() += 1;
    }
    assert_eq!(hops.values().copied().collect::<Vec<_>>(), [2, 2, 2]);
    let run = kit.on_request(call(7));
    run.assert_reply_saying(503, "All Targets Full");
    assert!(run.leases.is_empty());
}

#[test]
fn the_least_loaded_target_gets_the_call() {
    let settings = json!({ "algorithm": "least-calls", "targets": [
        { "uri": "sip:192.0.2.1", "name": "large", "max_calls": 100 },
        { "uri": "sip:192.0.2.2", "name": "small", "max_calls": 10 },
    ]});
    let chosen = |large, small| {
        let world = World::new().leased("load-balancer", "large", large).leased(
            "load-balancer",
            "small",
            small,
        );
        let kit = kit(&settings).in_world(world);
        hop(&kit.on_request(call(1)))
    };
    assert_eq!(chosen(50, 4), "sip:192.0.2.2");
    assert_eq!(chosen(30, 4), "sip:192.0.2.1");
    assert_eq!(chosen(100, 9), "sip:192.0.2.2");
    assert_eq!(chosen(99, 10), "sip:192.0.2.1");

    // Without limits weights are the measure, and every call counts.
    let settings = json!({ "algorithm": "least-calls", "targets": [
        { "uri": "sip:192.0.2.1", "weight": 2 },
        { "uri": "sip:192.0.2.2" },
    ]});
    let kit = kit(&settings);
    for number in 0..300 {
        kit.on_request(call(number));
    }
    let held = |name: &str| kit.world().leases("load-balancer", name);
    assert_eq!((held("sip:192.0.2.1"), held("sip:192.0.2.2")), (200, 100));
}

#[test]
fn equally_loaded_targets_take_turns() {
    let mut settings = three("least-calls", Some(10));
    settings["tries"] = json!(1);
    let kit = kit(&settings);
    let mut hops = Vec::new();
    for number in 0..6 {
        let run = kit.on_request(call(number));
        hops.push(hop(&run));
        // It is over before the next one comes.
        kit.on_failure(run.then(), &failed(503)).assert_reply(503);
    }
    assert_eq!(hops[..3], hops[3..]);
    let different: BTreeSet<&String> = hops.iter().collect();
    assert_eq!(different.len(), 3, "{hops:?}");
}

#[test]
fn what_is_out_of_order_is_passed_over_and_its_place_is_free_again() {
    let kit = kit(&three("weighted-round-robin", Some(5)));
    for status in [408, 500, 502, 503, 504] {
        let mut run = kit.on_request(call(1));
        let mut tried = vec![hop(&run)];
        for _ in 0..2 {
            run = kit.on_failure(run.then(), &failed(status));
            run.assert_record_route(true);
            assert_eq!(run.armed, Hooks::FAILURE);
            tried.push(hop(&run));
            assert_eq!(
                run.leases.len(),
                1,
                "that of the failed target is given back"
            );
            assert_eq!(run.vars["load-balancer.target"], run.leases[0].key);
        }
        let last = kit.on_failure(run.then(), &failed(status));
        last.assert_reply_saying(503, "No Target Left");
        assert!(last.leases.is_empty());
        tried.sort();
        assert_eq!(tried, ["sip:192.0.2.1", "sip:192.0.2.2", "sip:192.0.2.3"]);
        for name in ["t1", "t2", "t3"] {
            assert_eq!(kit.world().leases("load-balancer", name), 0);
        }
    }
}

#[test]
fn what_a_callee_says_goes_to_the_caller() {
    let kit = kit(&three("weighted-round-robin", None));
    let run = kit.on_request(call(1));
    for status in [302, 401, 404, 480, 486, 487, 488, 600, 603, 604] {
        let after = kit.on_failure(run.then(), &failed(status));
        assert_eq!(after.verdict, Verdict::Next, "{status}");
    }
    let cancelled = Failure {
        cancelled: true,
        ..failed(408)
    };
    assert_eq!(
        kit.on_failure(run.then(), &cancelled).verdict,
        Verdict::Next
    );
    // A call that another policy relayed is none of ours.
    let other = kit.on_failure(call(1), &failed(503));
    assert_eq!(other.verdict, Verdict::Next);
}

#[test]
fn a_full_target_is_no_way_out_either() {
    let settings = three("weighted-round-robin", Some(5));
    let run = kit(&settings).on_request(call(1));
    let full = ["t1", "t2", "t3"]
        .into_iter()
        .fold(World::new(), |world, name| {
            world.leased("load-balancer", name, 5)
        });
    let after = kit(&settings)
        .in_world(full)
        .on_failure(run.then(), &failed(503));
    after.assert_reply_saying(503, "No Target Left");
}

#[test]
fn as_many_targets_are_tried_as_the_settings_say() {
    let mut settings = three("weighted-round-robin", None);
    settings["tries"] = json!(2);
    let kit = kit(&settings);
    let second = kit.on_failure(kit.on_request(call(1)).then(), &failed(408));
    assert!(matches!(second.verdict, Verdict::Relay(_)));
    kit.on_failure(second.then(), &failed(408))
        .assert_reply(503);
}

#[test]
fn a_lower_priority_gets_what_a_higher_one_cannot_take() {
    let kit = kit(&json!({ "targets": [
        { "uri": "sip:192.0.2.9", "name": "spare" },
        { "uri": "sip:192.0.2.1", "name": "main", "priority": 1, "max_calls": 2 },
    ]}));
    let hops: Vec<String> = (0..3)
        .map(|number| hop(&kit.on_request(call(number))))
        .collect();
    assert_eq!(hops, ["sip:192.0.2.1", "sip:192.0.2.1", "sip:192.0.2.9"]);
    // Turns are taken where somebody is to be chosen, and there only.
    let drawn: Vec<usize> = (3..5)
        .map(|number| drawn(&kit.on_request(call(number))))
        .collect();
    assert_eq!(drawn, [2, 2], "both groups were asked");
}

#[test]
fn a_silent_target_has_so_long() {
    let timeout = |settings: &Value| {
        let run = kit(settings).on_request(call(1));
        run.relay().fr_timeout
    };
    let mut settings = three("weighted-round-robin", None);
    assert_eq!(timeout(&settings), 4_000);
    settings["fr_timeout"] = json!(2);
    assert_eq!(timeout(&settings), 2_000);
    settings["fr_timeout"] = json!(0);
    assert_eq!(timeout(&settings), 0, "Timer B");
}

#[test]
fn the_request_uri_may_name_the_target() {
    let kit = kit(&json!({ "request_uri": "target", "targets": [
        { "uri": "sip:192.0.2.1:5080;transport=tcp" },
    ]}));
    let run = kit.on_request(call(1));
    run.assert_relayed_to(&[&["sip:bob@192.0.2.1:5080;transport=tcp"]]);
}

#[test]
fn what_is_not_to_be_balanced_goes_on() {
    let mut settings = three("weighted-round-robin", None);
    let next =
        |settings: &Value, call: Call| kit(settings).on_request(call).verdict == Verdict::Next;
    let options = || Call::request("OPTIONS", "sip:bob@example.com");
    assert!(next(&settings, options()));
    settings["methods"] = json!(["INVITE", "OPTIONS"]);
    assert!(!next(&settings, options()));
    kit(&settings)
        .on_request(options())
        .assert_record_route(false);
    settings["users"] = json!(["alice", "bo*"]);
    settings["domains"] = json!(["Example.com"]);
    let to = |uri: &str| next(&settings, Call::request("INVITE", uri));
    assert!(!to("sip:bob@example.com") && !to("sip:alice@EXAMPLE.com"));
    assert!(to("sip:carol@example.com") && to("sip:bob@example.org"));
}

#[test]
fn requests_of_dialogs_follow_their_routes() {
    let settings = three("least-calls", Some(5));
    let within = |outcome| call(1).in_dialog(outcome);
    let run = kit(&settings).on_request(within(RouteOutcome::Loose));
    assert_eq!(run.verdict, Verdict::Next);
    assert!(run.leases.is_empty());
    let run = kit(&settings).on_request(within(RouteOutcome::None));
    run.assert_reply_saying(404, "Not Here");
    let forged = within(RouteOutcome::Loose).route_signature(RouteSignature::Invalid);
    kit(&settings).on_request(forged).assert_reply(403);
    let ack = Call::request("ACK", "sip:bob@example.com").in_dialog(RouteOutcome::None);
    kit(&settings).on_request(ack).assert_dropped();
    let mut open = settings;
    open["in_dialog"] = json!("next");
    let run = kit(&open).on_request(within(RouteOutcome::None));
    assert_eq!(run.verdict, Verdict::Next);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let target = |more: Value| {
        let mut target = json!({ "uri": "sip:192.0.2.1" });
        target
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({ "targets": [target] })
    };
    for (settings, words) in [
        (json!({}), "targets"),
        (json!({ "targets": [] }), "names none"),
        (json!({ "targets": [{}] }), "uri"),
        (
            json!({ "targets": [{ "uri": "192.0.2.1" }] }),
            "target 1: `192.0.2.1` is no SIP URI",
        ),
        (
            json!({ "targets": [{ "uri": "sip:a;transport=x" }] }),
            "transport `x`",
        ),
        (
            json!({ "targets": [{ "uri": "sip:a" }, { "uri": "sip:a" }] }),
            "target 2: `sip:a` is named twice",
        ),
        (target(json!({ "max_calls": 0 })), "`max_calls` is 0"),
        (
            target(json!({ "weight": 0 })),
            "targets of priority 0: no one has a `weight`",
        ),
        (target(json!({ "wieght": 1 })), "wieght"),
        (
            json!({ "targets": [{ "uri": "sip:a", "weight": 1000 }, { "uri": "sip:b", "weight": 999 }] }),
            "come to 1999",
        ),
        (
            json!({ "algorithm": "least-calls", "targets": [{ "uri": "sip:a", "max_calls": 1 }, { "uri": "sip:b" }] }),
            "cannot be compared",
        ),
        (
            json!({ "algorithm": "least-calls", "targets": [{ "uri": "sip:a", "max_calls": 1, "weight": 2 }] }),
            "measured by `max_calls`",
        ),
        (
            json!({ "algorithm": "random", "targets": [{ "uri": "sip:a" }] }),
            "unknown variant `random`",
        ),
        (
            json!({ "methods": ["BYE"], "targets": [{ "uri": "sip:a" }] }),
            "`BYE` begins nothing",
        ),
        (
            json!({ "methods": [], "targets": [{ "uri": "sip:a" }] }),
            "`methods` is empty",
        ),
        (
            json!({ "domains": ["sip:a"], "targets": [{ "uri": "sip:a" }] }),
            "`sip:a` is no host",
        ),
        (
            json!({ "timeout": 0, "targets": [{ "uri": "sip:a" }] }),
            "`timeout` is 0",
        ),
        (
            json!({ "ring_timeout": 4_294_967_295_u32, "targets": [{ "uri": "sip:a" }] }),
            "`ring_timeout` 4294967295 is too long",
        ),
        (
            json!({ "fr_timeout": 4_294_967_295_u32, "targets": [{ "uri": "sip:a" }] }),
            "`fr_timeout` 4294967295 is too long",
        ),
    ] {
        let refused = Kit::<LoadBalancer>::configured(&settings).err();
        let reason = refused.unwrap_or_else(|| "accepted".into());
        assert!(reason.contains(words), "{settings}: {reason}");
    }
}

#[test]
fn the_example_of_the_readme_is_accepted() {
    let settings = json!({ "algorithm": "least-calls", "targets": [
        { "uri": "sip:192.0.2.1;transport=tcp", "max_calls": 500 },
        { "uri": "sip:192.0.2.2;transport=tcp", "max_calls": 200 },
        { "uri": "sip:198.51.100.1", "max_calls": 100, "priority": -1 },
    ]});
    assert_eq!(Kit::<LoadBalancer>::configured(&settings).err(), None);
}
