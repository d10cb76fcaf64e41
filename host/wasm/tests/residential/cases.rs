//! The cases: every rule of the policy, and what the host may answer to it.

use super::*;

/// An INVITE of alice to bob of a domain without authentication.
fn case(name: &'static str, options: &'static str, expected: &'static str) -> Case {
    Case {
        name,
        options,
        sent: INVITE,
        route: RouteOutcome::None,
        world: World::default(),
        expected,
    }
}

const OFF: &str = r#""auth":"off""#;
const SERIAL: &str = r#""auth":"off","forking":"serial","ring_timeout":12"#;
const REDIRECT: &str = r#""auth":"off","mode":"redirect""#;

/// Every rule of the policy's README, and what the host may answer to it.
pub(crate) fn cases() -> Vec<Case> {
    let three = [
        ("sip:bob@192.0.2.3", 300),
        ("sip:bob@192.0.2.1", 900),
        ("sip:bob@192.0.2.2", 900),
    ];
    let register = |name, options, world: World, expected| Case {
        sent: REGISTER,
        world,
        ..case(name, options, expected)
    };
    let authenticated = |outcome| World {
        auth: Ok(outcome),
        ..World::default()
    };
    let saving = |outcome| World {
        save: Ok(outcome),
        ..alice()
    };
    let sending = |name, sent, options, expected| Case {
        sent,
        world: alice(),
        ..case(name, options, expected)
    };
    let routed = |name, sent, route, expected| Case {
        sent,
        route,
        ..case(name, OFF, expected)
    };
    vec![
        // REGISTER.
        register("no credentials", "", World::default(), "reply 401"),
        register(
            "two algorithms",
            r#""algorithms":["sha256","md5"]"#,
            World::default(),
            "reply 401",
        ),
        register(
            "stale nonce",
            "",
            authenticated(AuthOutcome::Stale),
            "reply 401",
        ),
        register(
            "wrong password",
            "",
            authenticated(AuthOutcome::Refused),
            "reply 401",
        ),
        register(
            "slowed down",
            "",
            authenticated(AuthOutcome::Throttled),
            "reply 401",
        ),
        register("right password", "", alice(), "reply 200"),
        register(
            "somebody else's password",
            "",
            authenticated(AuthOutcome::Authenticated("mallory".into())),
            "reply 403",
        ),
        register("query", "", saving(SaveOutcome::Queried(2)), "reply 200"),
        register(
            "too brief",
            "",
            saving(SaveOutcome::Refused(423)),
            "reply 423",
        ),
        register(
            "the location service fails",
            "",
            World {
                save: Err(down()),
                ..alice()
            },
            "reply 500",
        ),
        register(
            "the accounts cannot be read",
            "",
            World {
                auth: Err(down()),
                ..World::default()
            },
            "reply 500",
        ),
        sending(
            "unknown extension",
            Sent {
                more: "Require: path, teleport\r\n",
                ..REGISTER
            },
            OFF,
            "reply 420",
        ),
        sending(
            "domain not served",
            Sent {
                uri: "sip:elsewhere.test",
                ..REGISTER
            },
            OFF,
            "reply 404",
        ),
        sending(
            "address of record that is no SIP URI",
            Sent {
                to: "<tel:+4930123>",
                ..REGISTER
            },
            OFF,
            "reply 400",
        ),
        // INVITE to users.
        case("to a user", OFF, "relay 1"),
        case("without credentials", "", "reply 407"),
        sending("with credentials", INVITE, "", "relay 1"),
        Case {
            world: authenticated(AuthOutcome::Authenticated("mallory".into())),
            ..case("with credentials of another", "", "reply 403")
        },
        case(
            "alias",
            r#""auth":"off","aliases":{"bob":"alice"}"#,
            "relay 1",
        ),
        case(
            "alias elsewhere",
            r#""auth":"off","aliases":{"bob":"sip:bob@192.0.2.99"}"#,
            "relay 1",
        ),
        Case {
            world: bound(&three),
            ..case("serial by q", SERIAL, "relay 2+1")
        },
        case("serial, nobody there", SERIAL, "reply 480"),
        case(
            "unknown user",
            r#""auth":"off","unknown_user":"404""#,
            "reply 404",
        ),
        Case {
            world: World {
                bindings: Err(down()),
                ..World::default()
            },
            ..case("bindings cannot be read", SERIAL, "reply 500")
        },
        Case {
            world: bound(&three),
            ..case("redirect", REDIRECT, "redirect 3")
        },
        sending(
            "a domain without a user",
            Sent {
                uri: "sip:example.com",
                ..INVITE
            },
            OFF,
            "reply 484",
        ),
        sending(
            "a number of the caller's domain",
            Sent {
                uri: "tel:+49-30-123",
                ..INVITE
            },
            OFF,
            "relay 1",
        ),
        sending(
            "a body and fields that are not UTF-8",
            Sent {
                body: b"\xff\xfe\x00binary",
                ..INVITE
            },
            OFF,
            "relay 1",
        ),
        // Foreign destinations.
        sending(
            "foreign, with credentials",
            Sent {
                uri: "sip:bob@elsewhere.test",
                ..INVITE
            },
            r#""auth":"register""#,
            "relay",
        ),
        Case {
            world: World::default(),
            ..sending(
                "foreign, without",
                Sent {
                    uri: "sip:bob@elsewhere.test",
                    ..INVITE
                },
                r#""auth":"register""#,
                "reply 407",
            )
        },
        sending(
            "from strangers to strangers",
            Sent {
                uri: "sip:bob@elsewhere.test",
                from: "<sip:eve@nowhere.test>;tag=e",
                ..INVITE
            },
            OFF,
            "reply 403",
        ),
        routed("preloaded", INVITE, RouteOutcome::Preloaded, "reply 403"),
        routed(
            "preloaded, followed",
            INVITE,
            RouteOutcome::Preloaded,
            "relay",
        ),
        // Dialogs.
        routed("loose route", BYE, RouteOutcome::Loose, "relay"),
        routed("strict route", BYE, RouteOutcome::Strict, "relay"),
        routed("no route of ours", BYE, RouteOutcome::None, "reply 404"),
        routed(
            "ACK along the route set",
            Sent {
                method: "ACK",
                ..BYE
            },
            RouteOutcome::Loose,
            "relay",
        ),
        routed(
            "stray ACK",
            Sent {
                method: "ACK",
                ..BYE
            },
            RouteOutcome::None,
            "drop",
        ),
        // OPTIONS.
        sending(
            "OPTIONS to us",
            Sent {
                method: "OPTIONS",
                uri: "sip:example.com",
                body: b"",
                ..INVITE
            },
            "",
            "reply 200",
        ),
        sending(
            "OPTIONS to a user",
            Sent {
                method: "OPTIONS",
                body: b"",
                ..INVITE
            },
            "",
            "relay 1",
        ),
    ]
}
