//! Example: numbers become E.164, header fields are set and removed as the settings say, and who is
//! on the block list gets 403. The same policy stands beside this one in C and in TypeScript.

mod settings;

use sipbox_guest::{
    Error, Hooks, Policy, ReplyVerdict, Request, Response, Verdict, export, info, warn,
};

use settings::is_digits;
pub use settings::{Field, Settings};

const COUNT: &str = "screen.provisional";

/// The policy: its settings, checked.
pub struct Screen(Settings);

impl Policy for Screen {
    type Settings = Settings;

    fn configure(settings: Settings) -> Result<Self, String> {
        settings.checked().map(Self)
    }

    fn on_request(&self, request: &Request) -> Verdict {
        let Self(settings) = self;
        if request.in_dialog() {
            return Verdict::Next;
        }
        let uri = request.request_uri();
        let user = uri.user().unwrap_or_default();
        let callee = self.normalised(user).unwrap_or_else(|| user.to_owned());
        let from = request.from().user().unwrap_or_default();
        let caller = self.normalised(from).unwrap_or_else(|| from.to_owned());
        if is_blocked(&caller, &settings.blocked_callers)
            || is_blocked(&callee, &settings.blocked_callees)
        {
            info!("blocked: {caller} calls {callee}");
            return Verdict::reply(403).reason(&settings.reason).into();
        }
        if callee != user {
            let after = uri.scheme().len() + 1;
            let (before, rest) = uri.text().split_at_checked(after).unwrap_or_default();
            let rest = rest.strip_prefix(user).unwrap_or_default();
            let changed = format!("{before}{callee}{rest}");
            attempt("set-request-uri", request.set_request_uri(&changed));
        }
        for name in &settings.remove_headers {
            attempt("remove-header", request.remove_header(name));
        }
        for Field { name, value } in &settings.set_headers {
            attempt("set-header", request.set_header(name, value));
        }
        if settings.count_header.is_some() {
            attempt("arm", request.arm(Hooks::REPLY));
        }
        Verdict::Next
    }

    fn on_reply(&self, response: &Response) -> ReplyVerdict {
        let known = response.var(COUNT);
        let mut count: u32 = known.and_then(|count| count.parse().ok()).unwrap_or(0);
        if response.status() < 200 {
            count += 1;
            attempt("set-var", response.set_var(COUNT, &count.to_string()));
        }
        if let Some(name) = &self.0.count_header {
            attempt("set-header", response.set_header(name, &count.to_string()));
        }
        ReplyVerdict::Forward
    }
}

impl Screen {
    /// The number in its international form, if it is one that was dialled in full.
    fn normalised(&self, user: &str) -> Option<String> {
        let written: String = user.chars().filter(|c| !"-.()".contains(*c)).collect();
        let number = match written.strip_prefix('+') {
            Some(digits) => is_digits(digits).then(|| digits.to_owned()),
            None => is_digits(&written)
                .then(|| self.without_prefix(&written))
                .flatten(),
        }?;
        // E.164: no leading zero, 15 digits at most.
        let good = !number.is_empty() && !number.starts_with('0') && number.len() <= 15;
        good.then(|| format!("+{number}"))
    }

    fn without_prefix(&self, digits: &str) -> Option<String> {
        let Self(settings) = self;
        let international = settings
            .international_prefixes
            .iter()
            .filter(|prefix| digits.starts_with(prefix.as_str()))
            .max_by_key(|prefix| prefix.len());
        if let Some(prefix) = international {
            return digits.strip_prefix(prefix.as_str()).map(str::to_owned);
        }
        let trunk = &settings.trunk_prefix;
        let national = digits.strip_prefix(trunk.as_str())?;
        (!trunk.is_empty() && !national.is_empty())
            .then(|| format!("{}{national}", settings.country_code))
    }
}

fn is_blocked(number: &str, list: &[String]) -> bool {
    list.iter().any(|entry| match entry.strip_suffix('*') {
        Some(beginning) => number.starts_with(beginning),
        None => number == entry,
    })
}

/// An edit that the host refuses is the operator's mistake, and no reason to lose the call.
fn attempt(what: &str, edit: Result<(), Error>) {
    if let Err(error) = edit {
        warn!("{what}: {error}");
    }
}

export!(Screen, hooks = [request, reply]);

#[cfg(test)]
mod tests {
    use sipbox_testkit::{Call, Kit};

    use super::*;

    const SETTINGS: &str = r#"{"country_code": "49", "international_prefixes": ["00", "0011"],
        "blocked_callees": ["+4930*"], "remove_headers": ["Subject"], "count_header": "X-Count"}"#;

    #[test]
    fn what_is_dialled_becomes_a_number() {
        let policy = Screen::configure(serde_json::from_str(SETTINGS).unwrap()).unwrap();
        for (dialled, number) in [
            ("0301", Some("+49301")),
            ("0044-20.7946(0)", Some("+442079460")),
            ("0011212", Some("+212")),
            ("+49-30", Some("+4930")),
            ("110", None),
            ("0", None),
            ("00", None),
            ("+", None),
            ("000123", None),
            ("+1234567890123456", None),
            ("bob", None),
            ("", None),
        ] {
            assert_eq!(policy.normalised(dialled).as_deref(), number, "{dialled}");
        }
    }

    #[test]
    fn who_is_blocked_is_refused_and_others_go_on() {
        let kit = Kit::<Screen>::new(SETTINGS);
        let refused = kit.on_request(Call::request("INVITE", "sip:030123@example.com"));
        assert_eq!(
            refused.verdict,
            Verdict::reply(403).reason("Blocked").into()
        );
        let passed = kit.on_request(Call::request("INVITE", "sip:040123@example.com"));
        assert_eq!(passed.verdict, Verdict::Next);
    }

    #[test]
    fn settings_are_refused_by_name() {
        for (settings, said) in [
            (r#"{"country_code": "049"}"#, "country_code"),
            (
                r#"{"country_code": "49", "remove_headers": ["a b"]}"#,
                "remove_headers[0]",
            ),
            (r#"{"country_code": "49", "reason": "a\nb"}"#, "reason"),
        ] {
            let refused = Kit::<Screen>::configured(settings)
                .err()
                .unwrap_or_default();
            assert!(refused.contains(said), "{settings}: {refused}");
        }
    }
}
