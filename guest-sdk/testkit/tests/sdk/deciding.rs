//! Edits, verdicts, later hooks, and what the kit refuses.

use std::rc::Rc;

use sipbox_guest::location::Binding;
use sipbox_guest::log::Level;
use sipbox_guest::verdict::{registered, uri, uri_via};
use sipbox_guest::{
    BranchVerdict, Edit, Error, Failure, Header, Hooks, NoSettings, Policy, ReplyVerdict, Request,
    Response, Target, Verdict,
};
use sipbox_testkit::{Call, Kit, World, binding};

use crate::{SCRIPT, Scripted, asking};

#[test]
fn groups_follow_preference_and_equal_ones_go_together() {
    let of = |qs: &[u16]| {
        let targets: Vec<Target> = qs.iter().map(|q| uri(format!("sip:{q}")).q(*q)).collect();
        let run = asking(Call::request("INVITE", "sip:x@example.com"), move |_| {
            let first = uri("sip:first").q(1);
            Verdict::relay()
                .to(first)
                .by_preference(targets.clone())
                .into()
        });
        run.relay()
            .groups
            .iter()
            .map(|group| group.iter().map(|t| t.q).collect())
            .collect()
    };
    let groups: Vec<Vec<u16>> = of(&[500, 900, 500, 1, 1000]);
    assert_eq!(
        groups,
        [vec![1], vec![1000], vec![900], vec![500, 500], vec![1]]
    );
    let groups: Vec<Vec<u16>> = of(&[]);
    assert_eq!(groups, [vec![1]]);
}

#[test]
fn a_relay_is_built_step_by_step() {
    let run = asking(Call::request("INVITE", "sip:bob@example.com"), |_| {
        Verdict::relay()
            .to(registered("bob@example.com").id(7))
            .to_all([
                uri("sip:a@192.0.2.1"),
                uri_via("sip:b@x", "sip:192.0.2.9;transport=tcp"),
            ])
            .to_all([])
            .route_param("nat", "yes")
            .ring_timeout(20_000)
            .total_timeout(60_000)
            .fr_timeout(4_000)
            .into()
    });
    run.assert_relayed_to(&[
        &["registered bob@example.com"],
        &["sip:a@192.0.2.1", "sip:b@x via sip:192.0.2.9;transport=tcp"],
    ]);
    let plan = run.relay();
    assert_eq!(plan.groups[0][0].id, 7);
    assert_eq!((plan.ring_timeout, plan.total_timeout), (20_000, 60_000));
    assert_eq!(plan.fr_timeout, 4_000);
    assert_eq!(
        plan.record_route,
        Some(vec![("nat".to_owned(), "yes".to_owned())])
    );
}

#[test]
fn a_reply_is_built_step_by_step() {
    let run = asking(Call::request("OPTIONS", "sip:example.com"), |_| {
        Verdict::reply(200)
            .reason("Fine")
            .header("Allow", "INVITE")
            .body("text/plain", "hello")
            .into()
    });
    run.assert_reply_saying(200, "Fine");
    assert_eq!(run.reply_headers("allow"), ["INVITE"]);
    let body = run.reply().body.as_ref().expect("a body");
    assert_eq!(
        (body.content_type.as_str(), body.bytes.as_slice()),
        ("text/plain", &b"hello"[..])
    );
}

#[test]
fn edits_are_kept_in_order_and_bad_ones_are_refused() {
    let run = asking(Call::request("INVITE", "sip:bob@example.com"), |request| {
        request.set_header("Subject", "hi").expect("fine");
        request.remove_header("Organization").expect("fine");
        request.set_request_uri("sip:bob@192.0.2.1").expect("fine");
        let refused = |result: Result<(), Error>| result.expect_err("a bad edit");
        assert!(matches!(
            refused(request.set_header("Via", "x")),
            Error::Protected(_)
        ));
        assert!(matches!(
            refused(request.add_header("f", "x")),
            Error::Protected(_)
        ));
        assert!(matches!(
            refused(request.add_header("X", "a\r\nY: b")),
            Error::Malformed(_)
        ));
        assert!(matches!(
            refused(request.add_header("X Y", "a")),
            Error::Malformed(_)
        ));
        assert!(matches!(
            refused(request.set_request_uri("nowhere")),
            Error::Malformed(_)
        ));
        let all_or_none = [
            Edit::RemoveHeader("Subject".into()),
            Edit::SetHeader(Header {
                name: "CSeq".into(),
                value: "1 INVITE".into(),
            }),
        ];
        assert!(matches!(
            refused(request.apply(&all_or_none)),
            Error::Protected(_)
        ));
        Verdict::Next
    });
    assert_eq!(
        run.edits,
        [
            Edit::SetHeader(Header {
                name: "Subject".into(),
                value: "hi".into()
            }),
            Edit::RemoveHeader("Organization".into()),
            Edit::SetRequestUri("sip:bob@192.0.2.1".into()),
        ]
    );
}

#[test]
fn a_policy_logs_and_keeps_variables_for_its_later_hooks() {
    struct Counting;
    impl Policy for Counting {
        type Settings = NoSettings;

        fn configure(NoSettings {}: NoSettings) -> Result<Self, String> {
            Ok(Self)
        }

        fn on_request(&self, request: &Request) -> Verdict {
            sipbox_guest::info!("call of {}", request.call_id());
            request.set_var("seen", "1").expect("fine");
            request
                .arm(Hooks::BRANCH | Hooks::REPLY | Hooks::FAILURE)
                .expect("fine");
            Verdict::relay().to(registered("bob@example.com")).into()
        }

        fn on_branch(&self, request: &Request, target: &Target) -> BranchVerdict {
            assert_eq!(request.var("seen").as_deref(), Some("1"));
            if target.q == 0 {
                BranchVerdict::Skip
            } else {
                BranchVerdict::Keep
            }
        }

        fn on_reply(&self, response: &Response) -> ReplyVerdict {
            assert_eq!(response.var("seen").as_deref(), Some("1"));
            match (response.status(), response.reason()) {
                (183, "Session Progress") => ReplyVerdict::Drop,
                _ => ReplyVerdict::Forward,
            }
        }

        fn on_failure(&self, request: &Request, failure: &Failure) -> Verdict {
            assert_eq!(request.var("seen").as_deref(), Some("1"));
            match failure.status {
                486 => Verdict::relay().to(uri("sip:voicemail@192.0.2.8")).into(),
                _ => Verdict::Next,
            }
        }
    }

    let kit = Kit::<Counting>::new("");
    let run = kit.on_request(Call::request("INVITE", "sip:bob@example.com"));
    run.assert_logged(Level::Info, "a84b4c76e66710");
    assert_eq!(run.armed, Hooks::all());
    assert_eq!(run.vars.get("seen").map(String::as_str), Some("1"));

    let best = kit.on_branch(run.then(), &registered("bob@example.com"));
    assert_eq!(best.verdict, BranchVerdict::Keep);
    let worst = kit.on_branch(run.then(), &registered("bob@example.com").q(0));
    assert_eq!(worst.verdict, BranchVerdict::Skip);

    let progress = kit.on_reply(run.then().response(183, "Session Progress"));
    assert_eq!(progress.verdict, ReplyVerdict::Drop);
    let ringing = kit.on_reply(run.then().response(180, "Ringing"));
    assert_eq!(ringing.verdict, ReplyVerdict::Forward);

    let failed = |status| Failure {
        status,
        reason: String::new(),
        failed: Vec::new(),
        cancelled: false,
    };
    kit.on_failure(run.then(), &failed(486))
        .assert_relayed_to(&[&["sip:voicemail@192.0.2.8"]]);
    assert_eq!(
        kit.on_failure(run.then(), &failed(404)).verdict,
        Verdict::Next
    );
}

#[test]
fn hooks_that_a_policy_does_not_have_leave_things_as_they_are() {
    struct Nothing;
    impl Policy for Nothing {
        type Settings = NoSettings;

        fn configure(NoSettings {}: NoSettings) -> Result<Self, String> {
            Ok(Self)
        }
    }
    let kit = Kit::<Nothing>::new("{}");
    let call = || Call::request("INVITE", "sip:bob@example.com");
    let failure = Failure {
        status: 486,
        reason: "Busy Here".into(),
        failed: vec![],
        cancelled: false,
    };
    assert_eq!(kit.on_request(call()).verdict, Verdict::Next);
    assert_eq!(
        kit.on_branch(call(), &uri("sip:x@y")).verdict,
        BranchVerdict::Keep
    );
    assert_eq!(
        kit.on_reply(call().response(200, "OK")).verdict,
        ReplyVerdict::Forward
    );
    assert_eq!(kit.on_failure(call(), &failure).verdict, Verdict::Next);
    assert!(Kit::<Nothing>::configured(r#"{"x": 1}"#).is_err());
}

#[test]
fn calls_out_of_place_are_refused() {
    struct Restless;
    impl Policy for Restless {
        type Settings = NoSettings;

        fn configure(NoSettings {}: NoSettings) -> Result<Self, String> {
            Ok(Self)
        }

        fn on_request(&self, request: &Request) -> Verdict {
            let limits = sipbox_guest::location::SaveLimits {
                min_expires: 0,
                max_expires: 1,
                default_expires: 1,
                max_contacts: 0,
                options: vec![],
            };
            let saved = sipbox_guest::location::save("bob@example.com", &limits);
            assert!(
                matches!(saved, Err(Error::OutOfPlace(_))),
                "{}",
                request.method()
            );
            Verdict::Next
        }

        fn on_reply(&self, response: &Response) -> ReplyVerdict {
            let edit = Edit::SetRequestUri("sip:x@y".into());
            assert!(matches!(response.apply(&[edit]), Err(Error::OutOfPlace(_))));
            ReplyVerdict::Forward
        }
    }
    let kit = Kit::<Restless>::new("{}");
    let run = kit.on_request(Call::request("INVITE", "sip:bob@example.com"));
    assert_eq!(run.verdict, Verdict::Next);
    let run = kit.on_reply(run.then().response(200, "OK"));
    assert!(run.edits.is_empty());
}

#[test]
fn bindings_are_looked_up_best_first_and_removed_with_the_verdict() {
    SCRIPT.set(Rc::new(|_| {
        use sipbox_guest::location::{lookup, remove};
        let contacts: Vec<String> = lookup("bob@example.com")
            .expect("bindings")
            .into_iter()
            .map(|b| b.contact)
            .collect();
        assert_eq!(contacts, ["sip:best@x", "sip:worst@x"]);
        assert_eq!(remove("bob@example.com"), Ok(2));
        assert!(matches!(lookup("bob"), Err(Error::Malformed(_))));
        Verdict::Next
    }));
    let kit = Kit::<Scripted>::new("{}").in_world(
        World::new()
            .registered(
                "bob@example.com",
                Binding {
                    q: 10,
                    ..binding("sip:worst@x")
                },
            )
            .registered("bob@example.com", binding("sip:best@x")),
    );
    kit.on_request(Call::request("INVITE", "sip:bob@example.com"));
    assert!(kit.world().bindings("bob@example.com").is_empty());
}

#[test]
#[should_panic(expected = "decides differently")]
fn a_policy_that_remembers_earlier_calls_fails_the_replay() {
    struct Forgetful(std::cell::Cell<u16>);
    impl Policy for Forgetful {
        type Settings = NoSettings;

        fn configure(NoSettings {}: NoSettings) -> Result<Self, String> {
            Ok(Self(std::cell::Cell::new(400)))
        }

        fn on_request(&self, _: &Request) -> Verdict {
            self.0.set(self.0.get() + 1);
            Verdict::reply(self.0.get()).into()
        }
    }
    let kit = Kit::<Forgetful>::new("{}");
    kit.on_request(Call::request("INVITE", "sip:bob@example.com"))
        .assert_reply(401);
    kit.on_request(Call::request("INVITE", "sip:bob@example.com"));
}

#[test]
#[should_panic(expected = "the host would refuse this verdict")]
fn an_ill_formed_verdict_fails_the_test() {
    asking(Call::request("INVITE", "sip:bob@example.com"), |_| {
        Verdict::reply(200).header("Subject", "a\r\nX: b").into()
    });
}
