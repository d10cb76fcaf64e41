//! Routes requests by a table of users. In twenty lines what a policy is: settings,
//! one hook, a verdict.

use std::collections::BTreeMap;

use serde::Deserialize;
use sipbox_guest::verdict::uri;
use sipbox_guest::{Policy, Request, Verdict};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// User part of the Request-URI to the URI that the request goes to.
    #[serde(default)]
    table: BTreeMap<String, String>,
    /// The status for users that are not in the table; 0 asks the next policy.
    #[serde(default)]
    otherwise: u16,
}

struct Routes(Settings);

impl Policy for Routes {
    type Settings = Settings;

    fn configure(settings: Settings) -> Result<Self, String> {
        match settings.otherwise {
            0 | 400..700 => Ok(Self(settings)),
            status => Err(format!("otherwise = {status} is no final refusal")),
        }
    }

    fn on_request(&self, request: &Request) -> Verdict {
        let target = request
            .request_uri()
            .user()
            .and_then(|user| self.0.table.get(user));
        match (target, self.0.otherwise) {
            (Some(target), _) => Verdict::relay().to(uri(target)).into(),
            (None, 0) => Verdict::Next,
            (None, status) => Verdict::reply(status).into(),
        }
    }
}

sipbox_guest::export!(Routes, hooks = [request]);
