//! The settings as the operator writes them.

use serde::Deserialize;
use sipbox_guest::SourceClass;
use sipbox_guest::nat::{BindingFlags, SdpFixes};

use crate::NatRules;

/// A fact that counts as address translation: OpenSIPS's names of nat_uac_test, and more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Test {
    /// The source's port is not that of the top Via.
    DiffPortSrcVia,
    /// The source's address is not that of the top Via.
    DiffIpSrcVia,
    /// The address of a Contact is private.
    PrivateContact,
    /// The address of a stream is private.
    PrivateSdp,
    /// The address of the top Via is private.
    PrivateVia,
    /// The source's address is not that of a Contact.
    DiffIpSrcContact,
    /// The source's port is not that of a Contact.
    DiffPortSrcContact,
    /// A carrier's translation.
    CarrierGradeNat,
    /// The source is private.
    PrivateSource,
    /// The source is this machine.
    Loopback,
}

impl Test {
    fn fact(self) -> SourceClass {
        match self {
            Self::DiffPortSrcVia => SourceClass::DIFF_PORT_SRC_VIA,
            Self::DiffIpSrcVia => SourceClass::DIFF_IP_SRC_VIA,
            Self::PrivateContact => SourceClass::PRIVATE_CONTACT,
            Self::PrivateSdp => SourceClass::PRIVATE_SDP,
            Self::PrivateVia => SourceClass::PRIVATE_VIA,
            Self::DiffIpSrcContact => SourceClass::DIFF_IP_SRC_CONTACT,
            Self::DiffPortSrcContact => SourceClass::DIFF_PORT_SRC_CONTACT,
            Self::CarrierGradeNat => SourceClass::CARRIER_GRADE_NAT,
            Self::PrivateSource => SourceClass::PRIVATE_SOURCE,
            Self::Loopback => SourceClass::LOOPBACK,
        }
    }
}

/// How the bindings of phones behind a translation are kept reachable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ping {
    /// Not at all.
    Off,
    /// By bytes that ask for no answer.
    Bytes,
    /// By a SIP request.
    Sip,
    /// By a SIP request; who does not answer is removed.
    SipRemove,
}

/// What is mended in session descriptions: the flags of fix_nated_sdp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SdpFix {
    /// `a=direction:active`
    AddDirActive,
    /// Addresses of `c=`.
    RewriteMediaIp,
    /// `a=nortpproxy:yes`
    AddNoRtpproxy,
    /// The address of `o=`.
    RewriteOriginIp,
    /// Null addresses of `c=`.
    RewriteNullIps,
    /// Old addresses are not kept.
    OldipSkip,
}

impl SdpFix {
    fn flag(self) -> SdpFixes {
        match self {
            Self::AddDirActive => SdpFixes::ADD_DIR_ACTIVE,
            Self::RewriteMediaIp => SdpFixes::REWRITE_MEDIA_IP,
            Self::AddNoRtpproxy => SdpFixes::ADD_NO_RTPPROXY,
            Self::RewriteOriginIp => SdpFixes::REWRITE_ORIGIN_IP,
            Self::RewriteNullIps => SdpFixes::REWRITE_NULL_IPS,
            Self::OldipSkip => SdpFixes::OLDIP_SKIP,
        }
    }
}

/// The settings. All have defaults.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Facts of which one makes a request one from behind a translation.
    pub tests: Vec<Test>,
    /// The same for responses.
    pub reply_tests: Vec<Test>,
    /// Whether responses go to the source port of every request.
    pub force_rport: bool,
    /// Whether a mended Contact is restored in requests to it.
    pub preserve_uri: bool,
    /// URI parameters of a mended Contact, such as `;ob`.
    pub contact_params: String,
    /// How bindings are kept reachable.
    pub ping: Ping,
    /// What is mended in the session descriptions of who is behind a translation.
    pub sdp: Vec<SdpFix>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            tests: vec![
                Test::DiffPortSrcVia,
                Test::PrivateVia,
                Test::DiffIpSrcVia,
                Test::PrivateContact,
            ],
            reply_tests: vec![Test::PrivateContact],
            force_rport: true,
            preserve_uri: true,
            contact_params: String::new(),
            ping: Ping::Sip,
            sdp: Vec::new(),
        }
    }
}

impl Settings {
    /// Checks the settings and makes the rules of them.
    ///
    /// # Errors
    /// What is wrong, in words for the operator.
    pub fn check(self) -> Result<NatRules, String> {
        let facts = |tests: &[Test]| {
            tests
                .iter()
                .fold(SourceClass::empty(), |all, test| all | test.fact())
        };
        let params = &self.contact_params;
        if !params.is_empty() && !params.starts_with(';') {
            return Err(format!(
                "`contact_params`: `{params}` does not begin with a semicolon"
            ));
        }
        Ok(NatRules {
            tests: facts(&self.tests),
            reply_tests: facts(&self.reply_tests),
            force_rport: self.force_rport,
            preserve_uri: self.preserve_uri,
            marks: match self.ping {
                Ping::Off => None,
                Ping::Bytes => Some(BindingFlags::empty()),
                Ping::Sip => Some(BindingFlags::SIPPING),
                Ping::SipRemove => Some(BindingFlags::SIPPING | BindingFlags::REMOVE_ON_TIMEOUT),
            },
            sdp: self
                .sdp
                .iter()
                .fold(SdpFixes::empty(), |all, fix| all | fix.flag()),
            contact_params: self.contact_params,
        })
    }
}
