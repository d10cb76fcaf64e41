//! Example: spreads the calls to some users over gateways by weight; where a
//! gateway fails, the next one is tried. Other requests go to the next policy.
//!
//! The choice comes from the Call-ID: no instance has to know what another one
//! chose, and a call that is replayed goes where it went.

use sipbox_guest::verdict::uri_via;
use sipbox_guest::{Failure, Hooks, Policy, Request, Verdict, error, export};

/// ```json
/// {
///   "users": ["conference"],
///   "gateways": [{ "uri": "sip:192.0.2.1", "weight": 3 }, { "uri": "sip:192.0.2.2" }]
/// }
/// ```
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Balance {
    /// Who is called through the gateways; empty: everybody.
    #[serde(default)]
    users: Vec<String>,
    gateways: Vec<Gateway>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Gateway {
    uri: String,
    /// How many calls it gets, compared with the others; 0: only if they fail.
    #[serde(default = "one")]
    weight: u32,
}

fn one() -> u32 {
    1
}

impl Policy for Balance {
    type Settings = Self;

    fn configure(settings: Self) -> Result<Self, String> {
        let mut weights = settings.gateways.iter().map(|gateway| gateway.weight);
        match weights.try_fold(0_u32, u32::checked_add) {
            None => Err("the weights of `gateways` are too large".into()),
            Some(0) => Err("no member of `gateways` has a weight".into()),
            Some(_) => Ok(settings),
        }
    }

    fn on_request(&self, request: &Request) -> Verdict {
        let user = request.request_uri().user().unwrap_or_default();
        let ours = self.users.is_empty() || self.users.iter().any(|known| known == user);
        if request.in_dialog() || !ours {
            return Verdict::Next;
        }
        self.send(request, 0)
    }

    /// A gateway that is out of order or says nothing is passed over; a callee who
    /// is busy is so behind every gateway.
    fn on_failure(&self, request: &Request, failure: &Failure) -> Verdict {
        let out_of_order = |status| status == 408 || (500..600).contains(&status);
        let tried = failure.failed.len();
        let last = failure.failed.last().map_or(0, |target| target.status);
        if failure.cancelled || !out_of_order(last) || tried >= self.gateways.len() {
            return Verdict::Next;
        }
        self.send(request, tried)
    }
}

impl Balance {
    /// Relays to the gateway that comes so many behind the chosen one.
    fn send(&self, request: &Request, behind: usize) -> Verdict {
        let position = self.choose(request.call_id()) + behind;
        let Some(gateway) = self.gateways.iter().cycle().nth(position) else {
            return Verdict::reply(503).into();
        };
        if let Err(reason) = request.arm(Hooks::FAILURE) {
            error!("no other gateway will be tried: {reason}");
        }
        let target = uri_via(request.request_uri().text(), &gateway.uri);
        Verdict::relay().to(target).record_route().into()
    }

    /// The position of the gateway that gets this call first.
    fn choose(&self, call_id: &str) -> usize {
        let sum: u32 = self.gateways.iter().map(|gateway| gateway.weight).sum();
        let mut left = hash(call_id) % sum.max(1);
        for (position, gateway) in self.gateways.iter().enumerate() {
            match left.checked_sub(gateway.weight) {
                Some(rest) => left = rest,
                None => return position,
            }
        }
        0
    }
}

/// FNV-1a, and a last mixing: Call-IDs that differ in one digit have to part.
fn hash(text: &str) -> u32 {
    let hash = text.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let hash = (hash ^ (hash >> 16)).wrapping_mul(0x7feb_352d);
    hash ^ (hash >> 15)
}

export!(Balance, hooks = [request, failure]);

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use sipbox_guest::{FailedTarget, RouteOutcome};
    use sipbox_testkit::{Call, Kit, Run};

    use super::*;

    const SETTINGS: &str = r#"{
        "users": ["conference"],
        "gateways": [
            { "uri": "sip:192.0.2.1", "weight": 3 },
            { "uri": "sip:192.0.2.2" },
            { "uri": "sip:192.0.2.3", "weight": 0 }
        ]
    }"#;

    fn kit() -> Kit<Balance> {
        Kit::new(SETTINGS)
    }

    fn call(call_id: &str) -> Call {
        Call::request("INVITE", "sip:conference@example.com").set("Call-ID", call_id)
    }

    fn gateway(run: &Run) -> String {
        run.assert_record_route(true);
        let targets = run.targets().concat();
        let [target] = &targets[..] else {
            panic!("{targets:?}")
        };
        let via = "sip:conference@example.com via ";
        target.strip_prefix(via).unwrap().to_owned()
    }

    fn failure(statuses: &[u16]) -> Failure {
        let failed = statuses.iter().map(|status| FailedTarget {
            id: 0,
            uri: "sip:conference@example.com".into(),
            status: *status,
        });
        Failure {
            status: statuses.last().copied().unwrap_or_default(),
            reason: String::new(),
            failed: failed.collect(),
            cancelled: false,
        }
    }

    #[test]
    fn calls_are_spread_by_weight() {
        let kit = kit();
        let mut first = BTreeMap::<String, u32>::new();
        for number in 0..4000 {
            let run = kit.on_request(call(&format!("{number}-8181@192.0.2.10")));
            *first.entry(gateway(&run)).or_default() += 1;
        }
        assert_eq!(first.keys().count(), 2, "{first:?}");
        let heavy = first["sip:192.0.2.1"];
        assert!((2900..3100).contains(&heavy), "{first:?}");
    }

    #[test]
    fn every_other_gateway_is_tried_when_one_is_out_of_order() {
        let kit = kit();
        for number in 0..20 {
            let id = format!("call-{number}");
            let mut tried = vec![gateway(&kit.on_request(call(&id)))];
            for failed in [&[503][..], &[503, 408]] {
                tried.push(gateway(&kit.on_failure(call(&id), &failure(failed))));
            }
            tried.sort();
            assert_eq!(tried, ["sip:192.0.2.1", "sip:192.0.2.2", "sip:192.0.2.3"]);
            let last = kit.on_failure(call(&id), &failure(&[503, 408, 500]));
            assert_eq!(last.verdict, Verdict::Next, "nobody is left");
        }
    }

    #[test]
    fn a_busy_callee_is_busy() {
        for status in [404, 486, 487, 603] {
            let run = kit().on_failure(call("a"), &failure(&[status]));
            assert_eq!(run.verdict, Verdict::Next, "{status}");
        }
        let cancelled = Failure {
            cancelled: true,
            ..failure(&[503])
        };
        let run = kit().on_failure(call("a"), &cancelled);
        assert_eq!(run.verdict, Verdict::Next);
    }

    #[test]
    fn other_users_and_dialogs_are_left_to_the_next_policy() {
        let other = Call::request("INVITE", "sip:bob@example.com");
        assert_eq!(kit().on_request(other).verdict, Verdict::Next);
        let bye = Call::request("BYE", "sip:conference@192.0.2.1").in_dialog(RouteOutcome::Loose);
        assert_eq!(kit().on_request(bye).verdict, Verdict::Next);
    }

    #[test]
    fn settings_without_a_gateway_to_choose_are_refused() {
        for settings in [
            r#"{"gateways": []}"#,
            r#"{"gateways": [{"uri": "sip:192.0.2.1", "weight": 0}]}"#,
            r#"{"gateways": [{"uri": "a", "weight": 4000000000}, {"uri": "b", "weight": 4000000000}]}"#,
        ] {
            assert!(Kit::<Balance>::configured(settings).is_err(), "{settings}");
        }
    }
}
