//! The rules of the residential policy, one test each, run on the test kit.

mod calls;
mod dialogs;
mod identity;
mod register;
mod settings;

use policy_residential::Residential;
use sipbox_testkit::{Call, Kit, World};

/// alice and bob of example.com and carol of example.org have accounts.
fn world() -> World {
    World::new()
        .account("example.com", "alice", "wonderland")
        .account("example.com", "bob", "builder")
        .account("example.org", "carol", "christmas")
}

/// The policy with these settings in [`world`].
fn kit(settings: &serde_json::Value) -> Kit<Residential> {
    Kit::new(settings).in_world(world())
}

/// One domain, `example.com`, with these options.
fn domain(options: serde_json::Value) -> Kit<Residential> {
    kit(&serde_json::json!({ "domains": { "example.com": options } }))
}

/// One domain that asks nobody for credentials.
fn trusting() -> Kit<Residential> {
    domain(serde_json::json!({ "auth": "off" }))
}

/// An INVITE of alice@example.com.
fn invite(uri: &str) -> Call {
    Call::request("INVITE", uri)
}
