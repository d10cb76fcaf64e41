//! Does with `dialogs` and `leases` what the header fields `X-Ask` of a request say; follows
//! the calls that it relays, and writes down in `kv` what it is told of them.

use std::hint::black_box;

use serde::Deserialize;
use sipbox_guest::dialogs::{self, CreateFlags};
use sipbox_guest::leases::{self, AllOutcome, Outcome};
use sipbox_guest::verdict::uri_via;
use sipbox_guest::{Change, DialogEvent, Error, Policy, Request, Verdict, error, kv};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Where calls go; none: a request is answered with what was asked.
    #[serde(default)]
    to: Option<String>,
    /// Seconds that a call may last.
    #[serde(default = "hour")]
    timeout: u32,
    /// How long it takes to write down that a dialog was created, in rounds of work.
    #[serde(default)]
    slow: u32,
}

fn hour() -> u32 {
    3600
}

struct Dialogs(Settings);

impl Policy for Dialogs {
    type Settings = Settings;

    fn configure(settings: Settings) -> Result<Self, String> {
        Ok(Self(settings))
    }

    fn on_request(&self, request: &Request) -> Verdict {
        if let Some(to) = &self.0.to {
            return self.follow(request, to);
        }
        let mut reply = Verdict::reply(200);
        for asked in request.headers("X-Ask") {
            let answer = match answer(request, asked) {
                Ok(answer) => answer,
                Err(error) => refusal(&error),
            };
            reply = reply.header("X-Answer", &answer);
        }
        match request.header("X-End") {
            Some("panic") => panic!("as it was told"),
            Some("next") => Verdict::Next,
            _ => reply.into(),
        }
    }

    fn on_dialog(&self, event: &DialogEvent) {
        let what = match &event.change {
            Change::Created => {
                work(self.0.slow);
                "created".to_owned()
            }
            Change::Confirmed => "confirmed".to_owned(),
            Change::Ended(why) => format!("ended {why}"),
            Change::Failed(status) => format!("failed {status}"),
            Change::TimedOut => "timed out".to_owned(),
        };
        if let Err(reason) = write_down(event, &what) {
            error!("{what} is not written down: {reason:?}");
        }
    }
}

impl Dialogs {
    fn follow(&self, request: &Request, to: &str) -> Verdict {
        if request.in_dialog() {
            return Verdict::relay().into();
        }
        if request.method() == "INVITE" {
            let timeout = self.0.timeout.to_string();
            let options = [("timeout", timeout.as_str())];
            let caller = request.from().user().unwrap_or("nobody");
            let begun = dialogs::create_with(CreateFlags::BYE_ON_TIMEOUT, &options)
                .and_then(|_| dialogs::store_value("caller", caller));
            if let Err(reason) = begun {
                error!("the call is not followed: {reason:?}");
                return Verdict::reply(500).into();
            }
        }
        let target = uri_via(request.request_uri().text(), to);
        Verdict::relay().to(target).record_route().into()
    }
}

/// What happened behind what has happened before, and whose dialog it is.
fn write_down(event: &DialogEvent, what: &str) -> Result<(), Error> {
    let key = format!("told:{}", event.call_id);
    let told = match kv::get_text(&key)? {
        Some(before) => format!("{before}, {what}"),
        None => what.to_owned(),
    };
    kv::set(&key, &told, 0)?;
    let caller = event.variables.iter().find(|(name, _)| name == "caller");
    let caller = caller.map_or("-", |(_, value)| value);
    let of = format!(
        "{caller} {} {} {} {}",
        event.from_uri, event.from_tag, event.to_uri, event.to_tag
    );
    kv::set(&format!("of:{}", event.call_id), &of, 0)
}

fn work(rounds: u32) {
    let mut sum = 0u32;
    for round in 0..rounds {
        sum = black_box(sum.wrapping_mul(31).wrapping_add(round));
    }
}

fn answer(request: &Request, asked: &str) -> Result<String, Error> {
    let words: Vec<&str> = asked.split(' ').collect();
    let word = |at: usize| words.get(at).copied().unwrap_or_default();
    let number = |at: usize| word(at).parse().unwrap_or(0);
    let done = |()| "done".to_owned();
    Ok(match word(0) {
        "create" => {
            let options = [("timeout", word(1))];
            let options = if word(1).is_empty() {
                &[][..]
            } else {
                &options
            };
            dialogs::create_with(CreateFlags::BYE_ON_TIMEOUT, options)?.to_string()
        }
        "current" => dialogs::current().map_or_else(
            || "none".into(),
            |now| format!("{:?} {:?} {}", now.state, now.sender, now.timeout),
        ),
        "known" => request.has_known_dialog().to_string(),
        "store" => done(dialogs::store_value(word(1), word(2))?),
        "fetch" => dialogs::fetch_value(word(1))?.unwrap_or_else(|| "none".into()),
        "set" => done(dialogs::set_flag(word(1))?),
        "reset" => done(dialogs::reset_flag(word(1))?),
        "is-set" => dialogs::is_flag_set(word(1))?.to_string(),
        "test-and-set" => dialogs::test_and_set_flag(word(1), word(2) == "true")?.to_string(),
        "join" => done(dialogs::set_profile(word(1), word(2))?),
        "change" => done(dialogs::change_profile(word(1), word(2))?),
        "leave" => done(dialogs::unset_profile(word(1), word(2))?),
        "is-in" => dialogs::is_in_profile(word(1), word(2))?.to_string(),
        "size" => dialogs::profile_size(word(1), word(2))?.to_string(),
        "timeout" => done(dialogs::set_timeout(number(1))?),
        "validate" => format!("{:?}", dialogs::validate()?),
        "end" => done(dialogs::end(&[])?),
        "acquire" => match leases::acquire(word(1), word(2), number(3))? {
            Outcome::Granted(lease) => format!("granted {lease}"),
            Outcome::Full(held) => format!("full {held}"),
        },
        "acquire-all" => {
            let places = words.get(1..).unwrap_or_default().chunks(3);
            let places: Vec<_> = places
                .filter_map(|place| match place {
                    [scope, key, limit] => Some(leases::place(*scope, *key, limit.parse().ok()?)),
                    _ => None,
                })
                .collect();
            match leases::acquire_all(&places)? {
                AllOutcome::Granted => "granted".into(),
                AllOutcome::Full(at) => format!("full {at}"),
            }
        }
        "release" => done(leases::release(number(1))?),
        "held" => leases::held(word(1), word(2))?.to_string(),
        _ => "?".into(),
    })
}

fn refusal(error: &Error) -> String {
    match error {
        Error::Limit(_) => "limit".into(),
        Error::Malformed(_) => "malformed".into(),
        Error::Unavailable(_) => "unavailable".into(),
        Error::OutOfPlace(_) => "out-of-place".into(),
        Error::Protected(_) | Error::UnknownOption(_) => "?".into(),
    }
}

sipbox_guest::export!(Dialogs, hooks = [request, dialog]);
