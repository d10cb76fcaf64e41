//! What a policy sees through the SDK, and what the kit says about a policy.

use std::cell::RefCell;
use std::rc::Rc;

use sipbox_guest::location::Binding;
use sipbox_guest::log::Level;
use sipbox_guest::verdict::{registered, uri, uri_via};
use sipbox_guest::{
    BranchVerdict, Direction, Edit, Error, Failure, Header, Hooks, NoSettings, Policy,
    ReplyVerdict, Request, Response, RouteOutcome, Target, Transport, Verdict,
};
use sipbox_testkit::{Call, Kit, World, binding};

type Script = Rc<dyn Fn(&Request) -> Verdict>;

thread_local! {
    /// What the policy below does: a test puts its questions here.
    static SCRIPT: RefCell<Script> = RefCell::new(Rc::new(|_| Verdict::Next));
}

struct Scripted;

impl Policy for Scripted {
    type Settings = NoSettings;

    fn configure(NoSettings {}: NoSettings) -> Result<Self, String> {
        Ok(Self)
    }

    fn on_request(&self, request: &Request) -> Verdict {
        let script = SCRIPT.with_borrow(Rc::clone);
        script(request)
    }
}

fn asking(call: Call, script: impl Fn(&Request) -> Verdict + 'static) -> sipbox_testkit::Run {
    SCRIPT.set(Rc::new(script));
    Kit::<Scripted>::new("{}").on_request(call)
}

fn reading(call: Call, read: impl Fn(&Request) + 'static) {
    asking(call, move |request| {
        read(request);
        Verdict::Next
    })
    .assert_host_calls(&["view"]);
}

const INVITE: &str = "\
INVITE sips:b%6Fb;x=1:secret@[2001:db8::7]:5071;transport=tcp;lr?Subject=hi SIP/2.0
v: SIP/2.0/UDP 192.0.2.10:5060;branch=z9hG4bK776asdhds
f: \"Alice, \\\"A\\\"\" <sip:alice@EXAMPLE.com:5070>;tag=19;x=y
T: tel:+49-30-1234;phone-context=example.com
i: a84b4c76e66710
CSeq: 314159   INVITE
m: <sip:alice@192.0.2.10:5066;transport=udp>;expires=60
X-Note: one
 two
x-note: three
k: path, 100rel
X-Bytes: caf\u{e9}

v=0
";

#[test]
fn parts_of_the_request_uri() {
    reading(Call::text(INVITE), |request| {
        let target = request.request_uri();
        assert_eq!(request.method(), "INVITE");
        assert_eq!(target.scheme(), "sips");
        assert_eq!(target.user(), Some("b%6Fb;x=1"));
        assert_eq!(target.host(), "[2001:db8::7]");
        assert_eq!(target.port(), Some(5071));
        assert_eq!(target.params(), "transport=tcp;lr");
        assert_eq!(target.param("Transport"), Some("tcp"));
        assert_eq!(target.param("lr"), Some(""));
        assert_eq!(target.param("maddr"), None);
        assert_eq!(target.aor().as_deref(), Some("bob;x=1@[2001:db8::7]"));
    });
}

#[test]
fn parts_of_from_to_and_contact() {
    reading(Call::text(INVITE), |request| {
        let from = request.from();
        assert_eq!(from.uri(), "sip:alice@EXAMPLE.com:5070");
        assert_eq!((from.user(), from.host()), (Some("alice"), "EXAMPLE.com"));
        assert_eq!((from.port(), from.tag()), (Some(5070), Some("19")));
        assert_eq!(from.display_name(), Some("\"Alice, \\\"A\\\"\""));
        assert_eq!(from.aor().as_deref(), Some("alice@example.com"));
        let to = request.to();
        assert_eq!((to.user(), to.host()), (Some("+49-30-1234"), ""));
        assert_eq!((to.tag(), to.display_name(), to.port()), (None, None, None));
        let contact = request.contact().expect("there is a Contact");
        assert_eq!(
            (contact.user(), contact.host()),
            (Some("alice"), "192.0.2.10")
        );
        assert_eq!((contact.port(), contact.tag()), (Some(5066), None));
    });
    reading(Call::text(INVITE).without("m"), |request| {
        assert!(request.contact().is_none());
    });
}

#[test]
fn header_fields_in_any_form_and_case() {
    reading(Call::text(INVITE), |request| {
        assert_eq!(request.call_id(), "a84b4c76e66710");
        assert_eq!(
            (request.cseq_number(), request.cseq_method()),
            (Some(314_159), "INVITE")
        );
        for name in ["Supported", "k", "K", "sUPPORTED"] {
            assert_eq!(request.header(name), Some("path, 100rel"), "{name}");
        }
        let notes: Vec<&str> = request.headers("X-NOTE").collect();
        assert_eq!(notes.len(), 2);
        assert!(notes[0].starts_with("one") && notes[0].ends_with("two"));
        assert!(
            !notes[0].contains(['\r', '\n']),
            "a fold is blanks: {:?}",
            notes[0]
        );
        assert_eq!(notes[1], "three");
        assert_eq!(
            request.header_bytes("X-Note"),
            Some(b"one\r\n two".as_slice())
        );
        assert_eq!(request.header("Expires"), None);
        assert_eq!(request.header_bytes("Expires"), None);
        let all: Vec<&str> = request.all_headers().map(|(name, _)| name).collect();
        assert_eq!(
            all,
            [
                "Via",
                "From",
                "To",
                "Call-ID",
                "CSeq",
                "Contact",
                "X-Note",
                "x-note",
                "Supported",
                "X-Bytes"
            ]
        );
    });
}

#[test]
fn bytes_that_are_not_text_are_question_marks_in_text_and_exact_in_bytes() {
    // The view is patched by hand, since a `str` cannot hold such bytes.
    use sipbox_guest::bindings::host::sipbox::policy::message::MessageView;
    let message = Request::from_view(MessageView {
        bytes: b"INVITE\xff!\r\n x".to_vec(),
        index: vec![1, 0, 6, 128, 0, 6, 129, 6, 2, 256, 6, 6],
    });
    assert_eq!(message.method(), "INVITE");
    assert_eq!(message.header("invite"), Some("?!"));
    assert_eq!(message.header_bytes("invite"), Some(b"\xff!".as_slice()));
    assert_eq!(message.header("Via"), Some("?!   x"));
}

#[test]
fn a_broken_index_is_no_panic() {
    use sipbox_guest::bindings::host::sipbox::policy::message::MessageView;
    let broken = Request::from_view(MessageView {
        bytes: b"INVITE".to_vec(),
        index: vec![
            1,
            3,
            u32::MAX,
            2,
            u32::MAX,
            u32::MAX,
            129,
            0,
            6,
            400,
            0,
            1,
            7,
        ],
    });
    assert_eq!(broken.method(), "");
    assert_eq!(broken.request_uri().text(), "");
    assert_eq!(broken.header("Via"), None);
    assert_eq!(broken.all_headers().collect::<Vec<_>>(), [("", "INVITE")]);
}

#[test]
fn facts_that_are_not_in_the_bytes() {
    let call = Call::text(INVITE)
        .source("2001:db8::9", 40_000, Transport::Wss)
        .tenant("acme")
        .listener("edge")
        .at(1_900_000_000)
        .in_dialog(RouteOutcome::Strict)
        .direction(Direction::Upstream)
        .route_params("lr;nat=yes")
        .authenticated_user("alice");
    let call = call.set("To", "<sip:bob@example.com>;tag=7");
    reading(call, |request| {
        let source = request.source();
        assert_eq!((source.address, source.port), ("2001:db8::9", 40_000));
        assert_eq!(source.transport, Transport::Wss);
        assert_eq!((request.tenant(), request.listener()), ("acme", "edge"));
        assert_eq!(request.now().seconds, 1_900_000_000);
        assert!(request.in_dialog());
        assert_eq!(request.route_outcome(), RouteOutcome::Strict);
        assert_eq!(request.direction(), Direction::Upstream);
        assert_eq!(request.route_param("nat"), Some("yes"));
        assert_eq!(request.route_param("lr"), Some(""));
        assert_eq!(request.route_param("pn"), None);
        assert_eq!(request.authenticated_user(), Some("alice"));
        assert_eq!(request.body_length(), 4);
    });
    reading(Call::request("INVITE", "sip:bob@example.com"), |request| {
        assert!(!request.in_dialog());
        assert_eq!(request.route_outcome(), RouteOutcome::None);
        assert_eq!(request.authenticated_user(), None);
        assert_eq!(request.route_param("lr"), None);
    });
}

#[test]
fn equal_users_have_one_canonical_text() {
    for (written, canonical) in [
        ("alice", "alice"),
        ("%61lice", "alice"),
        ("%41lice", "Alice"),
        ("a%20b", "a%20b"),
        ("a%2fb", "a/b"),
        ("a%c3%a9", "a%C3%A9"),
        ("a%40b", "a%40b"),
        ("a%4", "a%4"),
        ("%", "%"),
        ("%zz", "%zz"),
        ("100%é", "100%é"),
        ("%+1", "%+1"),
    ] {
        assert_eq!(
            sipbox_guest::canonical_user(written),
            canonical,
            "{written}"
        );
    }
    assert_eq!(
        sipbox_guest::aor("%61lice", "EXAMPLE.Com"),
        "alice@example.com"
    );
}

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
            .into()
    });
    run.assert_relayed_to(&[
        &["registered bob@example.com"],
        &["sip:a@192.0.2.1", "sip:b@x via sip:192.0.2.9;transport=tcp"],
    ]);
    let plan = run.relay();
    assert_eq!(plan.groups[0][0].id, 7);
    assert_eq!((plan.ring_timeout, plan.total_timeout), (20_000, 60_000));
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
