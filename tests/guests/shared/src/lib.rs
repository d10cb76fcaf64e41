//! Does with `kv` and `counters` what the header fields `X-Ask` of a request say, and puts
//! the answers into its reply; refuses a source that asks too often.

use serde::Deserialize;
use sipbox_guest::counters::{self, Counter, Outcome};
use sipbox_guest::kv::{self, Swap};
use sipbox_guest::{Error, Policy, Request, Verdict};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    /// Told in each reply.
    #[serde(default)]
    version: String,
    /// Requests of one source in so many seconds.
    #[serde(default)]
    limit: Option<Limit>,
}

#[derive(Deserialize)]
struct Limit {
    most: u32,
    window: u32,
}

struct Shared(Settings);

impl Policy for Shared {
    type Settings = Settings;

    fn configure(settings: Settings) -> Result<Self, String> {
        Ok(Self(settings))
    }

    fn on_request(&self, request: &Request) -> Verdict {
        if request.method() == "ACK" {
            return Verdict::Drop;
        }
        if let Some(Limit { most, window }) = self.0.limit {
            let source = request.source().address;
            match Counter::new("requests", source, window).add(1) {
                Ok(sum) if sum <= most => {}
                Ok(_) => return Verdict::reply(403).reason("Too many").into(),
                Err(_) => return Verdict::reply(500).into(),
            }
        }
        let mut reply = Verdict::reply(200).header("X-Version", &self.0.version);
        for asked in request.headers("X-Ask") {
            let answer = match answer(asked) {
                Ok(answer) => answer,
                Err(error) => refusal(&error),
            };
            reply = reply.header("X-Answer", &answer);
        }
        match request.header("X-End") {
            Some("panic") => panic!("as it was told"),
            Some("next") => Verdict::Next,
            Some("drop") => Verdict::Drop,
            _ => reply.into(),
        }
    }
}

fn answer(asked: &str) -> Result<String, Error> {
    let words: Vec<&str> = asked.split(' ').collect();
    let number = |at: usize| {
        words
            .get(at)
            .and_then(|word| word.parse().ok())
            .unwrap_or(0)
    };
    let word = |at: usize| words.get(at).copied().unwrap_or_default();
    let counter = |window| Counter::new(word(1), word(2), window);
    Ok(match word(0) {
        "get" => shown(kv::get(word(1))?),
        "text" => kv::get_text(word(1))?.unwrap_or_else(|| "none".into()),
        "set" => {
            kv::set(word(1), word(2), number(3))?;
            "set".into()
        }
        "remove" => kv::remove(word(1))?.to_string(),
        // What stands there is expected: other words are the version, or `absent`.
        "swap" => {
            let found = kv::get(word(1))?.map(|entry| entry.version);
            swapped(kv::compare_and_set(word(1), found, word(2), 0)?)
        }
        "swap-if" => {
            let expected = word(3).parse().ok();
            swapped(kv::compare_and_set(word(1), expected, word(2), 0)?)
        }
        // So many keys of so many bytes: how many fitted, and what was said then.
        "fill" => {
            let value = vec![b'x'; number(2) as usize];
            for n in 0..number(1) {
                if let Err(error) = kv::set(&format!("{}{n}", word(3)), &value, 0) {
                    return Ok(format!("{n} {}", refusal(&error)));
                }
            }
            "all".into()
        }
        "key" => {
            kv::set(&"k".repeat(number(1) as usize), "", 0)?;
            "set".into()
        }
        "value" => {
            kv::set("large", vec![0; number(1) as usize], 0)?;
            "set".into()
        }
        "add" => counter(number(4)).add(number(3))?.to_string(),
        "take" => match counter(number(4)).take(number(3), number(5))? {
            Outcome::Taken(sum) => format!("taken {sum}"),
            Outcome::Over(sum) => format!("over {sum}"),
        },
        "read" => counter(number(3)).read()?.to_string(),
        "reset" => {
            counter(number(3)).reset()?;
            "reset".into()
        }
        "number" => counters::sequence(word(1))?.to_string(),
        "counters" => {
            for n in 0..number(1) {
                if let Err(error) = Counter::new("fill", &n.to_string(), 3600).add(1) {
                    return Ok(format!("{n} {}", refusal(&error)));
                }
            }
            "all".into()
        }
        _ => "?".into(),
    })
}

fn shown(entry: Option<kv::Entry>) -> String {
    entry.map_or_else(
        || "none".into(),
        |entry| format!("{} {}", String::from_utf8_lossy(&entry.value), entry.ttl),
    )
}

fn swapped(swap: Swap) -> String {
    match swap {
        Swap::Stored(_) => "stored".into(),
        Swap::Differs(found) => format!("differs {}", shown(found)),
        Swap::Busy => "busy".into(),
    }
}

fn refusal(error: &Error) -> String {
    match error {
        Error::Limit(which) => format!("limit {which}"),
        Error::Malformed(_) => "malformed".into(),
        Error::Unavailable(_) => "unavailable".into(),
        Error::OutOfPlace(_) => "out-of-place".into(),
        Error::Protected(_) | Error::UnknownOption(_) => "?".into(),
    }
}

sipbox_guest::export!(Shared, hooks = [request]);
