//! Asks for Record-Route in every way that there is, and tells what came back with a request
//! of the dialog.

use serde::Deserialize;
use sipbox_guest::verdict::uri;
use sipbox_guest::{
    BranchVerdict, Direction, Error, Hooks, Policy, Preloaded, Request, RouteOutcome,
    RouteSignature, Target, Verdict,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// Parameters of `record-route`; none: it is not asked for.
    record: Option<Vec<(String, String)>>,
    /// It is asked for a second time.
    again: bool,
    /// `record-route-preset`: outbound, and perhaps inbound.
    preset: Vec<String>,
    /// `add-route-param`
    add: Vec<(String, String)>,
    /// `add-route-param` in `on-branch`.
    branch: Vec<(String, String)>,
    /// Parameters of the verdict's `record-route`; none: it has none.
    verdict: Option<Vec<(String, String)>>,
    /// What `check-route-param` looks for.
    pattern: String,
    /// What becomes of a preloaded route.
    preloaded: Option<String>,
    /// Where requests go; none: as they are.
    target: Option<String>,
    /// The next policy decides.
    next: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            record: None,
            again: false,
            preset: Vec::new(),
            add: Vec::new(),
            branch: Vec::new(),
            verdict: None,
            pattern: "nat=(yes|on)".to_owned(),
            preloaded: None,
            target: None,
            next: false,
        }
    }
}

struct RecordRoute(Settings);

impl Policy for RecordRoute {
    type Settings = Settings;

    fn configure(settings: Settings) -> Result<Self, String> {
        Ok(Self(settings))
    }

    fn on_route(&self, request: &Request) {
        let told = format!(
            "{} {} {} {} {}",
            outcome(request.route_outcome()),
            signature(request.route_signature()),
            direction(request.direction()),
            match request.check_route_param(&self.0.pattern) {
                Ok(true) => "matches",
                Ok(false) => "differs",
                Err(error) => word(&error),
            },
            request.route_param("nat").unwrap_or("none"),
        );
        let _ = request.add_header("X-Route", &told);
    }

    fn on_request(&self, request: &Request) -> Verdict {
        let settings = &self.0;
        if request.in_dialog() {
            return if settings.next {
                Verdict::Next
            } else {
                Verdict::relay().into()
            };
        }
        let mut refused = Vec::new();
        let mut note = |outcome: Result<(), Error>| {
            refused.push(outcome.as_ref().map_or_else(word, |()| "ok"));
        };
        for (name, value) in &settings.add {
            note(request.add_route_param(name, value));
        }
        if let Some(params) = &settings.record {
            let params: Vec<(&str, &str)> = params
                .iter()
                .map(|(n, v)| (n.as_str(), v.as_str()))
                .collect();
            note(request.record_route(&params));
            if settings.again {
                note(request.record_route(&[]));
            }
        }
        if let [outbound, inbound @ ..] = &settings.preset[..] {
            let inbound = inbound.first().map(String::as_str);
            note(request.record_route_preset(outbound, inbound));
        }
        let _ = request.set_header("X-Asked", &refused.join(" "));
        if !settings.branch.is_empty() {
            let _ = request.arm(Hooks::BRANCH);
        }
        if settings.next {
            return Verdict::Next;
        }
        let mut relay = Verdict::relay();
        if let Some(target) = &settings.target {
            relay = relay.to(uri(target.clone()));
        }
        if let Some(params) = &settings.verdict {
            relay = relay.record_route();
            for (name, value) in params {
                relay = relay.route_param(name.clone(), value.clone());
            }
        }
        match settings.preloaded.as_deref() {
            Some("follow") => relay.preloaded(Preloaded::Follow).into(),
            Some("strip") => relay.preloaded(Preloaded::Strip).into(),
            _ => relay.into(),
        }
    }

    fn on_branch(&self, request: &Request, _: &Target) -> BranchVerdict {
        for (name, value) in &self.0.branch {
            let _ = request.add_route_param(name, value);
        }
        BranchVerdict::Keep
    }
}

fn outcome(outcome: RouteOutcome) -> &'static str {
    match outcome {
        RouteOutcome::None => "none",
        RouteOutcome::Loose => "loose",
        RouteOutcome::Strict => "strict",
        RouteOutcome::Preloaded => "preloaded",
        RouteOutcome::Foreign => "foreign",
    }
}

fn signature(signature: RouteSignature) -> &'static str {
    match signature {
        RouteSignature::None => "unsigned",
        RouteSignature::Valid => "valid",
        RouteSignature::Invalid => "invalid",
        RouteSignature::Expired => "expired",
    }
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Unknown => "unknown",
        Direction::Downstream => "downstream",
        Direction::Upstream => "upstream",
    }
}

fn word(error: &Error) -> &'static str {
    match error {
        Error::OutOfPlace(_) => "out-of-place",
        Error::Malformed(_) => "malformed",
        Error::Protected(_) => "protected",
        Error::UnknownOption(_) => "unknown-option",
        Error::Limit(_) => "limit",
        Error::Unavailable(_) => "unavailable",
    }
}

sipbox_guest::export!(RecordRoute, hooks = [route, request, branch]);
