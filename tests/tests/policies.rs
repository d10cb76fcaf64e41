//! The shipped policies as components: what they ask for is what they need.

use sipbox_policy_build::interfaces;
use sipbox_tests::guest;

/// Imports are the capabilities, so a new line here is a decision: the operator
/// of every tenant that runs the policy has to grant it.
#[test]
fn a_policy_imports_what_it_uses_and_exports_what_it_has() {
    let policy = |names: &[&str]| -> Vec<String> {
        let mut names: Vec<String> = names
            .iter()
            .map(|name| format!("sipbox:policy/{name}@0.1.0"))
            .collect();
        names.sort();
        names
    };
    for (component, imports, exports) in [
        (
            guest::residential(),
            policy(&[
                "types", "message", "call", "log", "auth", "location", "nat", "dialogs", "leases",
            ]),
            policy(&["lifecycle", "request-hook", "reply-hook"]),
        ),
        (
            guest::nat(),
            policy(&["types", "message", "call", "log", "nat"]),
            policy(&["lifecycle", "request-hook", "reply-hook"]),
        ),
        (
            guest::route_to(),
            // The SDK logs panics.
            policy(&["types", "message", "log"]),
            policy(&["lifecycle", "request-hook"]),
        ),
    ]
    .into_iter()
    .chain(guest::LANGUAGES.map(|language| {
        (
            guest::screen(language),
            policy(&["types", "message", "call", "log"]),
            policy(&["lifecycle", "request-hook", "reply-hook"]),
        )
    })) {
        let bytes = std::fs::read(&component).unwrap();
        let mut found = interfaces(&bytes).unwrap();
        found.imports.sort();
        found.exports.sort();
        // The start of TypeScript's interpreter, which was run when the component was made.
        found.exports.retain(|name| name != "init");
        assert_eq!(found.imports, imports, "imports of {}", component.display());
        assert_eq!(found.exports, exports, "exports of {}", component.display());
    }
}
