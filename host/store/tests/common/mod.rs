//! What the tests of the store share: bindings made the way the program makes them.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use sipbox_core::flow::TenantId;
use sipbox_core::location::{Aor, Commit, LocationService, NewContact};
use sipbox_core::time::WallTime;

pub(crate) const NOW: WallTime = WallTime(1_700_000_000_000);
pub(crate) const TENANT: TenantId = TenantId(0);

pub(crate) fn service() -> LocationService {
    LocationService::new(4, &[5; 16])
}

pub(crate) fn aor(n: u64) -> Aor {
    Aor::parse(&format!("user{n}@example.com")).unwrap()
}

pub(crate) fn add(service: &LocationService, n: u64, contact: &str) -> Commit {
    let contact = NewContact {
        uri: contact.into(),
        q: 500,
        expires: Some(3600),
        path: vec!["<sip:edge;lr>".into()],
        methods: Some(5),
    };
    service.add(TENANT, &aor(n), contact, NOW).unwrap()
}

/// Everything that a service holds, in order.
pub(crate) fn held(service: &LocationService) -> Vec<(String, Arc<str>)> {
    let mut held = Vec::new();
    service.dump(None, |_, aor, bindings| {
        held.extend(
            bindings
                .iter()
                .map(|b| (aor.to_string(), Arc::from(&*b.contact))),
        );
    });
    held.sort();
    held
}
