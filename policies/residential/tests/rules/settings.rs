//! Settings that make no sense are refused with a text that says what.

use policy_residential::Residential;
use serde_json::{Value, json};
use sipbox_testkit::Kit;

fn refusal(settings: &Value) -> String {
    let refused = Kit::<Residential>::configured(settings).err();
    refused.unwrap_or_else(|| "accepted".into())
}

#[test]
fn a_refusal_names_what_is_wrong() {
    for (settings, part) in [
        (json!({}), "domains"),
        (json!({ "domains": {} }), "no domain"),
        (
            json!({ "domains": { "example.com": {} }, "auht": "off" }),
            "auht",
        ),
        (
            json!({ "domains": { "example.com": { "auht": "off" } } }),
            "auht",
        ),
        (
            json!({ "domains": { "example.com": { "auth": "some" } } }),
            "some",
        ),
        (
            json!({ "domains": { "example.com": { "algorithms": [] } } }),
            "algorithms",
        ),
        (
            json!({ "domains": { "example.com": { "algorithms": ["sha1"] } } }),
            "sha1",
        ),
        (
            json!({ "domains": { "sip:example.com": {} } }),
            "sip:example.com",
        ),
        (
            json!({ "domains": { "example.com:5060": {} } }),
            "example.com:5060",
        ),
        (
            json!({ "domains": { "a.example": { "names": ["b.example"] }, "b.example": {} } }),
            "twice",
        ),
        (
            json!({ "domains": { "a.example": {}, "A.example": {} } }),
            "twice",
        ),
        (
            json!({ "domains": { "example.com": { "min_expires": 600, "max_expires": 60 } } }),
            "min_expires",
        ),
        (
            json!({ "domains": { "example.com": { "calls": 1, "dialogs": false } } }),
            "needs `dialogs`",
        ),
        (
            json!({ "domains": { "example.com": { "calls": 1, "record_route": false } } }),
            "needs `dialogs`",
        ),
        (
            json!({ "domains": { "example.com": {} }, "nat": { "contact_params": "ob" } }),
            "contact_params",
        ),
        (
            json!({ "domains": { "example.com": { "ring_timeout": 4_294_967_295_u32 } } }),
            "ring",
        ),
        (
            json!({ "domains": { "example.com": { "aliases": { "x": "" } } } }),
            "alias `x`",
        ),
        (
            json!({ "domains": { "example.com": { "aliases": { "x": "@host" } } } }),
            "alias `x`",
        ),
        (
            json!({ "domains": { "example.com": { "aliases": { "x": "a b" } } } }),
            "alias `x`",
        ),
        (
            json!({ "domains": { "example.com": {} }, "preloaded_route": "maybe" }),
            "maybe",
        ),
    ] {
        let reason = refusal(&settings);
        assert!(reason.contains(part), "{settings}: {reason}");
    }
}

#[test]
fn the_example_of_the_readme_is_accepted() {
    let readme = include_str!("../../README.md");
    let (_, behind) = readme
        .split_once("```json\n")
        .expect("the README has an example");
    let (example, _) = behind.split_once("```").expect("the example ends");
    assert_eq!(Kit::<Residential>::configured(example).err(), None);
}
