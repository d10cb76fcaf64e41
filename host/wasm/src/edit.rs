//! Which edits a policy may make. What passes here cannot make an ill-formed
//! message: the checks are those of the parser.

use bytes::Bytes;
use sipbox_core::policy::{Body, CallError, Edit};
use sipbox_core::record_route;
use sipbox_sip::{HeaderId, Uri, lex, reserved};

use crate::bindings::wit::types as wit;
use crate::cx::{ANYWHERE, CallCx, OF_REQUESTS};

/// Fields of a reply that `auth.challenge` alone writes.
const CHALLENGES: [HeaderId; 2] = [HeaderId::WwwAuthenticate, HeaderId::ProxyAuthenticate];

/// Checks a field's name.
pub(crate) fn check_name(name: &str) -> Result<(), CallError> {
    if !lex::is_token(name.as_bytes()) {
        return Err(CallError::Malformed(format!(
            "header name `{}`",
            shown(name)
        )));
    }
    if let Some(reserved) = reserved::field(name) {
        return Err(CallError::Protected(reserved.to_owned()));
    }
    Ok(())
}

/// Checks a field of a message.
pub(crate) fn check_field(name: &str, value: &str) -> Result<(), CallError> {
    check_name(name)?;
    check_value(name, value)
}

/// Checks a field of a reply.
pub(crate) fn check_reply_field(name: &str, value: &str) -> Result<(), CallError> {
    check_field(name, value)?;
    let id = HeaderId::from_name(name.as_bytes());
    if CHALLENGES.contains(&id) {
        return Err(CallError::Protected(id.name().to_owned()));
    }
    Ok(())
}

/// Checks that a text stays in its line.
pub(crate) fn check_value(what: &str, value: &str) -> Result<(), CallError> {
    if lex::is_field_value(value.as_bytes()) {
        Ok(())
    } else {
        Err(CallError::Malformed(format!(
            "{} contains a line end or nul",
            shown(what)
        )))
    }
}

/// Checks a URI that fills a text.
pub(crate) fn check_uri(what: &str, uri: &str) -> Result<(), CallError> {
    let bytes = uri.as_bytes();
    // A URI has no white space and no brackets around it.
    let plain = bytes
        .iter()
        .all(|b| *b > b' ' && *b != 0x7f && !matches!(b, b'<' | b'>' | b'"'));
    if plain && Uri::parse(bytes).is_ok() {
        Ok(())
    } else {
        Err(CallError::Malformed(format!("{what} `{}`", shown(uri))))
    }
}

/// Checks a body's type.
pub(crate) fn check_content_type(content_type: &str) -> Result<(), CallError> {
    check_value("content type", content_type)?;
    let (kind, rest) = content_type.split_once('/').unwrap_or(("", ""));
    let subtype = rest.split(';').next().unwrap_or("");
    if lex::is_token(kind.trim().as_bytes()) && lex::is_token(subtype.trim().as_bytes()) {
        Ok(())
    } else {
        Err(CallError::Malformed(format!(
            "content type `{}`",
            shown(content_type)
        )))
    }
}

/// Checks a parameter of a URI: its name and its value.
pub(crate) fn check_param(name: &str, value: &str) -> Result<(), CallError> {
    let fits = |text: &str| text.bytes().all(is_param_byte);
    if name.is_empty() || !fits(name) || !fits(value) {
        return Err(CallError::Malformed(format!(
            "parameter `{}={}`",
            shown(name),
            shown(value)
        )));
    }
    Ok(())
}

/// Checks a parameter of our Record-Route. Those that make it a route, and those of the
/// host, are not a policy's (RFC 3261 16.6, step 4).
pub(crate) fn check_route_param(name: &str, value: &str) -> Result<(), CallError> {
    check_param(name, value)?;
    record_route::check_name(name).map_err(|name| CallError::Protected(name.to_owned()))
}

/// `paramchar` of RFC 3261 section 25.1.
const fn is_param_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(
            b,
            b'-' | b'_'
                | b'.'
                | b'!'
                | b'~'
                | b'*'
                | b'\''
                | b'('
                | b')'
                | b'['
                | b']'
                | b'/'
                | b':'
                | b'&'
                | b'+'
                | b'$'
                | b'%'
        )
}

/// A text for an error: short, and without what would break a log line.
pub(crate) fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(64).flat_map(char::escape_debug).collect();
    if text.chars().nth(64).is_some() {
        shown.push_str("...");
    }
    shown
}

/// An edit, checked.
pub(crate) fn checked(edit: wit::Edit) -> Result<Edit, CallError> {
    Ok(match edit {
        wit::Edit::SetHeader(field) => {
            check_field(&field.name, &field.value)?;
            Edit::SetHeader(field.name, field.value)
        }
        wit::Edit::AddHeader(field) => {
            check_field(&field.name, &field.value)?;
            Edit::AddHeader(field.name, field.value)
        }
        wit::Edit::RemoveHeader(name) => {
            check_name(&name)?;
            Edit::RemoveHeader(name)
        }
        wit::Edit::SetRequestUri(uri) => {
            check_uri("request uri", &uri)?;
            // RFC 3261 19.1.1: a Request-URI has none.
            if Uri::parse(uri.as_bytes()).is_ok_and(|uri| !uri.headers.is_empty()) {
                return Err(CallError::Malformed(format!(
                    "request uri with headers `{}`",
                    shown(&uri)
                )));
            }
            Edit::SetRequestUri(uri)
        }
        wit::Edit::SetBody(body) => {
            check_content_type(&body.content_type)?;
            Edit::SetBody(Body {
                content_type: body.content_type,
                bytes: Bytes::from(body.bytes),
            })
        }
    })
}

/// Bytes that an edit keeps alive.
pub(crate) fn size(edit: &wit::Edit) -> usize {
    match edit {
        wit::Edit::SetHeader(field) | wit::Edit::AddHeader(field) => {
            field.name.len() + field.value.len()
        }
        wit::Edit::RemoveHeader(text) | wit::Edit::SetRequestUri(text) => text.len(),
        wit::Edit::SetBody(body) => body.content_type.len() + body.bytes.len(),
    }
}

impl CallCx {
    /// Stages edits: all, or none and the first error.
    pub(crate) fn stage_edits(
        &mut self,
        edits: Vec<wit::Edit>,
    ) -> wasmtime::Result<Result<(), CallError>> {
        let before = self.call.edits.len();
        for edit in edits {
            self.stage(size(&edit))?;
            let place = match edit {
                wit::Edit::SetRequestUri(_) => self.only_in("set-request-uri", &OF_REQUESTS),
                _ => self.only_in("an edit", &ANYWHERE),
            };
            match place.and_then(|()| checked(edit)) {
                Ok(edit) => self.call.edits.push(edit),
                Err(error) => {
                    self.call.edits.truncate(before);
                    return Ok(Err(error));
                }
            }
        }
        Ok(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(name: &str, value: &str) -> wit::Edit {
        wit::Edit::SetHeader(wit::Header {
            name: name.into(),
            value: value.into(),
        })
    }

    #[test]
    fn nothing_ill_formed_passes() {
        let bad = [
            header("X-A", "a\r\nVia: evil"),
            header("X-A", "a\nb"),
            header("X-A", "a\0b"),
            header("X A", "a"),
            header("", "a"),
            header("X:", "a"),
            wit::Edit::SetRequestUri("sip:a b@c".into()),
            wit::Edit::SetRequestUri("sip:a@c\r\nX: y".into()),
            wit::Edit::SetRequestUri("<sip:a@c>".into()),
            wit::Edit::SetRequestUri(String::new()),
            wit::Edit::SetRequestUri("sip:a@c?Subject=x".into()),
            wit::Edit::SetBody(wit::Body {
                content_type: "text".into(),
                bytes: vec![],
            }),
            wit::Edit::SetBody(wit::Body {
                content_type: "a/b\r\nX: y".into(),
                bytes: vec![],
            }),
        ];
        for edit in bad {
            let text = format!("{edit:?}");
            assert!(
                matches!(checked(edit), Err(CallError::Malformed(_))),
                "{text}"
            );
        }
    }

    #[test]
    fn the_hosts_fields_are_refused_in_every_spelling() {
        for name in [
            "Via",
            "v",
            "VIA",
            "max-forwards",
            "l",
            "Call-ID",
            "i",
            "t",
            "f",
            "Route",
            "c",
        ] {
            let refused = checked(header(name, "x"));
            assert!(matches!(refused, Err(CallError::Protected(_))), "{name}");
            let refused = checked(wit::Edit::RemoveHeader(name.into()));
            assert!(matches!(refused, Err(CallError::Protected(_))), "{name}");
        }
        assert!(check_reply_field("WWW-Authenticate", "Digest").is_err());
        assert!(check_field("WWW-Authenticate", "Digest").is_ok());
    }

    #[test]
    fn good_edits_keep_their_texts() {
        assert_eq!(
            checked(header("X-Ä".trim_end_matches('Ä'), "grüß Gott")).unwrap(),
            Edit::SetHeader("X-".into(), "grüß Gott".into())
        );
        assert_eq!(
            checked(wit::Edit::SetRequestUri(
                "sip:bob@example.org;transport=tcp".into()
            ))
            .unwrap(),
            Edit::SetRequestUri("sip:bob@example.org;transport=tcp".into())
        );
    }
}
