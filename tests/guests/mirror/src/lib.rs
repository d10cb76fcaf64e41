//! Does what a script of Kamailio does beside it (tests/tests/kamailio_*.rs), and tells in
//! header fields what it found.

use serde::Deserialize;
use sipbox_guest::dialogs::{self, CreateFlags, DialogState};
use sipbox_guest::nat::{self, SdpFixes};
use sipbox_guest::{Policy, Request, SourceClass, Verdict};

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Module {
    /// Every fact about the source, and all that mends a request.
    Nathelper,
    /// The state of each request's dialog; `X-End` ends it, `X-Timeout` is how long it may
    /// last.
    Dialog,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    module: Module,
}

struct Mirror(Module);

impl Policy for Mirror {
    type Settings = Settings;

    fn configure(settings: Settings) -> Result<Self, String> {
        Ok(Self(settings.module))
    }

    fn on_request(&self, request: &Request) -> Verdict {
        let done = match self.0 {
            Module::Nathelper => nathelper(request),
            Module::Dialog => dialog(request),
        };
        match done {
            Ok(()) if request.in_dialog() => Verdict::relay().into(),
            Ok(()) => Verdict::relay().record_route().into(),
            Err(error) => Verdict::reply(500).reason(error.to_string()).into(),
        }
    }
}

/// Facts that both proxies know, under our names.
const FACTS: [(&str, SourceClass); 7] = [
    ("private-contact", SourceClass::PRIVATE_CONTACT),
    ("diff-ip-src-via", SourceClass::DIFF_IP_SRC_VIA),
    ("private-via", SourceClass::PRIVATE_VIA),
    ("private-sdp", SourceClass::PRIVATE_SDP),
    ("diff-port-src-via", SourceClass::DIFF_PORT_SRC_VIA),
    ("private-source", SourceClass::PRIVATE_SOURCE),
    ("diff-port-src-contact", SourceClass::DIFF_PORT_SRC_CONTACT),
];

fn nathelper(request: &Request) -> Result<(), sipbox_guest::Error> {
    for (name, fact) in FACTS {
        if !request.classify_source(fact).is_empty() {
            request.add_header("X-Fact", name)?;
        }
    }
    nat::force_rport()?;
    nat::fix_nated_contact("", false)?;
    let fixes = SdpFixes::REWRITE_MEDIA_IP | SdpFixes::REWRITE_ORIGIN_IP | SdpFixes::OLDIP_SKIP;
    if request.body_length() > 0 {
        nat::fix_nated_sdp(fixes, "", "")?;
    }
    Ok(())
}

fn dialog(request: &Request) -> Result<(), sipbox_guest::Error> {
    if request.method() == "INVITE" && !request.in_dialog() {
        let timeout = request
            .header("X-Timeout")
            .map(|seconds| ("timeout", seconds));
        dialogs::create_with(CreateFlags::BYE_ON_TIMEOUT, timeout.as_slice())?;
    }
    let state = dialogs::current().map_or("none", |dialog| match dialog.state {
        DialogState::Unconfirmed => "1",
        DialogState::Early => "2",
        DialogState::ConfirmedNoAck => "3",
        DialogState::Confirmed => "4",
        DialogState::Deleted => "5",
    });
    request.add_header("X-State", state)?;
    if request.header("X-End").is_some() {
        dialogs::end(&[])?;
    }
    Ok(())
}

sipbox_guest::export!(Mirror, hooks = [request]);
