//! Example: sends every request that begins something to one next hop, whatever its
//! Request-URI says. The policy itself is the first twenty lines.

use sipbox_guest::{Policy, Preloaded, Request, Verdict, export, verdict::uri_via};

/// `{"next_hop": "sip:192.0.2.1:5070"}`
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RouteTo {
    next_hop: String,
}

impl Policy for RouteTo {
    type Settings = Self;

    fn configure(settings: Self) -> Result<Self, String> {
        Ok(settings)
    }

    fn on_request(&self, request: &Request) -> Verdict {
        // The host follows the routes of dialogs that went through here; whatever else has
        // a To tag is no better than a first request.
        if request.in_dialog() && Verdict::astray(request).is_none() {
            return Verdict::Next;
        }
        let target = uri_via(request.request_uri().text(), &self.next_hop);
        // A route set that it brings is for those behind the next hop.
        Verdict::relay()
            .to(target)
            .record_route()
            .preloaded(Preloaded::Follow)
            .into()
    }
}

export!(RouteTo, hooks = [request]);

#[cfg(test)]
mod tests {
    use sipbox_guest::RouteOutcome;
    use sipbox_testkit::{Call, Kit};

    use super::*;

    const SETTINGS: &str = r#"{"next_hop": "sip:192.0.2.1:5070"}"#;

    #[test]
    fn initial_requests_go_to_the_next_hop_with_their_own_uri() {
        Kit::<RouteTo>::new(SETTINGS)
            .on_request(Call::request("INVITE", "sip:bob@example.com"))
            .assert_relayed_to(&[&["sip:bob@example.com via sip:192.0.2.1:5070"]])
            .assert_record_route(true)
            .assert_host_calls(&["view"]);
    }

    #[test]
    fn in_dialog_requests_are_left_to_their_route_set() {
        let call = Call::request("BYE", "sip:bob@192.0.2.7").in_dialog(RouteOutcome::Loose);
        assert_eq!(
            Kit::<RouteTo>::new(SETTINGS).on_request(call).verdict,
            Verdict::Next
        );
        let call = Call::request("INVITE", "sip:bob@192.0.2.7").in_dialog(RouteOutcome::Foreign);
        Kit::<RouteTo>::new(SETTINGS)
            .on_request(call)
            .assert_relayed_to(&[&["sip:bob@192.0.2.7 via sip:192.0.2.1:5070"]]);
    }

    #[test]
    fn settings_without_a_next_hop_are_refused() {
        let refused = Kit::<RouteTo>::configured("{}").err();
        assert!(refused.is_some_and(|reason| reason.contains("next_hop")));
    }
}
