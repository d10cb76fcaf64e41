//! What the host refuses of what policies say, whatever the call.

use sipbox_guest::bindings::host::sipbox::policy::types::{Header, Options};
use sipbox_guest::{Edit, Error};
use sipbox_sip::reserved;

pub(crate) fn check_route_param(name: &str, value: &str) -> Result<(), Error> {
    check_value(name, value)?;
    match reserved::route_param(name) {
        Some(reserved) => Err(Error::Protected(reserved.to_owned())),
        None => Ok(()),
    }
}

pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(&byte);
    if name.is_empty() || !name.bytes().all(token) {
        return Err(Error::Malformed(format!("header name `{name}`")));
    }
    if let Some(reserved) = reserved::field(name) {
        return Err(Error::Protected(reserved.to_owned()));
    }
    Ok(())
}

pub(crate) fn check_value(what: &str, value: &str) -> Result<(), Error> {
    if value
        .bytes()
        .any(|byte| byte.is_ascii_control() && byte != b'\t')
    {
        return Err(Error::Malformed(format!("{what} has a control character")));
    }
    Ok(())
}

pub(crate) fn check_uri(uri: &str) -> Result<(), Error> {
    let scheme = uri.split_once(':').map_or("", |(scheme, _)| scheme);
    let named = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if named
        && !uri.ends_with(':')
        && !uri
            .bytes()
            .any(|byte| byte <= b' ' || b"<>\"".contains(&byte))
    {
        Ok(())
    } else {
        Err(Error::Malformed(format!("uri `{uri}`")))
    }
}

pub(crate) fn check_edit(edit: &Edit) -> Result<(), Error> {
    match edit {
        Edit::SetHeader(header) | Edit::AddHeader(header) => {
            check_name(&header.name)?;
            check_value(&header.name, &header.value)
        }
        Edit::RemoveHeader(name) => check_name(name),
        Edit::SetRequestUri(uri) => check_uri(uri),
        Edit::SetBody(body) => check_value("content-type", &body.content_type),
    }
}

pub(crate) fn check_options(options: &Options, known: &[(&str, &[&str])]) -> Result<(), Error> {
    for (name, value) in options {
        let listed = known
            .iter()
            .any(|(known, values)| known == name && values.contains(&value.as_str()));
        if !listed {
            return Err(Error::UnknownOption(format!("{name}={value}")));
        }
    }
    Ok(())
}

pub(crate) fn check_aor(aor: &str) -> Result<(), Error> {
    match aor.split_once('@') {
        Some((user, domain)) if !user.is_empty() && !domain.is_empty() => Ok(()),
        _ => Err(Error::Malformed(format!("address of record `{aor}`"))),
    }
}

pub(crate) fn edit_header(name: &str, value: &str) -> Header {
    Header {
        name: name.into(),
        value: value.into(),
    }
}
