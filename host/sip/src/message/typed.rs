//! The typed values of a message's headers, each parsed when it is asked for.

use super::Message;
use crate::auth::Credentials;
use crate::error::ValueError;
use crate::header::HeaderId;
use crate::index::ContentLength;
use crate::lex;
use crate::name_addr::{Contact, NameAddr};
use crate::ordinary;
use crate::uri::Host;
use crate::via::Via;

/// The value of a CSeq header field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// The sequence number, below 2^31.
    pub number: u32,
    /// The method's token.
    pub method: &'a [u8],
}

impl<'a> CSeq<'a> {
    /// Reads a CSeq value.
    ///
    /// # Errors
    /// When it is not a number below 2^31 (RFC 3261 8.1.1.5) and a method.
    pub fn parse(value: &'a [u8]) -> Result<Self, ValueError> {
        let value = lex::trim(value);
        let digits = value.iter().take_while(|b| b.is_ascii_digit()).count();
        let (number, rest) = value.split_at_checked(digits).unwrap_or_default();
        let method = lex::trim(rest);
        if method.len() == rest.len() || !lex::is_token(method) {
            return Err(ValueError::Malformed("CSeq"));
        }
        let number = lex::decimal(number).ok_or(ValueError::Malformed("CSeq"))?;
        match u32::try_from(number) {
            Ok(number) if number <= i32::MAX as u32 => Ok(Self { number, method }),
            _ => Err(ValueError::OutOfRange("CSeq")),
        }
    }
}

impl<'a> Message<'a> {
    /// The topmost Via element.
    ///
    /// # Errors
    /// When it is missing or malformed.
    pub fn via_top(&self) -> Result<Via<'a>, ValueError> {
        let top = self.values(HeaderId::Via).next();
        Via::parse(top.ok_or(ValueError::Missing(HeaderId::Via))?.bytes)
    }

    /// The topmost Via element as far as it can be read, to answer a request
    /// that is broken elsewhere.
    ///
    /// # Errors
    /// When not even its sent-by is readable.
    pub fn via_top_lenient(&self) -> Result<Via<'a>, ValueError> {
        let top = self.values(HeaderId::Via).next();
        Via::parse_lenient(top.ok_or(ValueError::Missing(HeaderId::Via))?.bytes)
    }

    /// Host and port of the topmost Via element, which are read even where the rest of it
    /// is broken.
    ///
    /// # Errors
    /// As [`via_top_lenient`](Self::via_top_lenient).
    pub fn sent_by(&self) -> Result<(Host<'a>, Option<u16>), ValueError> {
        let top = self.field(HeaderId::Via).map(|field| self.get(field.value));
        match top.and_then(ordinary::sent_by) {
            Some(sent_by) => Ok(sent_by),
            None => self.via_top_lenient().map(|via| (via.host, via.port)),
        }
    }

    /// Every Via element from the top.
    pub fn vias(&self) -> impl Iterator<Item = Result<Via<'a>, ValueError>> + use<'a> {
        self.values(HeaderId::Via)
            .map(|value| Via::parse(value.bytes))
    }

    /// The From address.
    ///
    /// # Errors
    /// When it is missing or malformed.
    pub fn from(&self) -> Result<NameAddr<'a>, ValueError> {
        NameAddr::parse(self.required(HeaderId::From)?)
    }

    /// The To address.
    ///
    /// # Errors
    /// When it is missing or malformed.
    pub fn to(&self) -> Result<NameAddr<'a>, ValueError> {
        NameAddr::parse(self.required(HeaderId::To)?)
    }

    /// The Call-ID.
    ///
    /// # Errors
    /// When it is missing, empty, or not one word.
    pub fn call_id(&self) -> Result<&'a [u8], ValueError> {
        let value = self.required(HeaderId::CallId)?;
        if value.is_empty() || value.iter().any(|b| *b <= b' ' || *b == 0x7f) {
            return Err(ValueError::Malformed("Call-ID"));
        }
        Ok(value)
    }

    /// The CSeq.
    ///
    /// # Errors
    /// When it is missing, malformed or out of range.
    pub fn cseq(&self) -> Result<CSeq<'a>, ValueError> {
        CSeq::parse(self.required(HeaderId::CSeq)?)
    }

    /// Max-Forwards, if it is there.
    ///
    /// # Errors
    /// When it is no number between 0 and 255 (RFC 3261 20.22).
    pub fn max_forwards(&self) -> Result<Option<u8>, ValueError> {
        self.small_number(HeaderId::MaxForwards)
    }

    /// Max-Breadth (RFC 5393), if it is there. Larger numbers count as 255.
    ///
    /// # Errors
    /// When it is no number.
    pub fn max_breadth(&self) -> Result<Option<u8>, ValueError> {
        let Some(value) = self.header(HeaderId::MaxBreadth) else {
            return Ok(None);
        };
        let number = lex::decimal(value).ok_or(ValueError::Malformed("Max-Breadth"))?;
        Ok(Some(u8::try_from(number).unwrap_or(u8::MAX)))
    }

    /// Every Contact element.
    pub fn contacts(&self) -> impl Iterator<Item = Result<Contact<'a>, ValueError>> + use<'a> {
        self.values(HeaderId::Contact)
            .map(|value| Contact::parse(value.bytes))
    }

    /// Every Route element from the top.
    pub fn routes(&self) -> impl Iterator<Item = Result<NameAddr<'a>, ValueError>> + use<'a> {
        self.addresses(HeaderId::Route)
    }

    /// Every Record-Route element from the top.
    pub fn record_routes(
        &self,
    ) -> impl Iterator<Item = Result<NameAddr<'a>, ValueError>> + use<'a> {
        self.addresses(HeaderId::RecordRoute)
    }

    /// Every element of a header that lists addresses.
    pub fn addresses(
        &self,
        id: HeaderId,
    ) -> impl Iterator<Item = Result<NameAddr<'a>, ValueError>> + use<'a> {
        self.values(id).map(|value| NameAddr::parse(value.bytes))
    }

    /// Expires in seconds, if it is there. Beyond 32 bits it counts as the
    /// largest number.
    ///
    /// # Errors
    /// When it is no number.
    pub fn expires(&self) -> Result<Option<u32>, ValueError> {
        self.seconds(HeaderId::Expires)
    }

    /// Min-Expires in seconds, if it is there.
    ///
    /// # Errors
    /// When it is no number.
    pub fn min_expires(&self) -> Result<Option<u32>, ValueError> {
        self.seconds(HeaderId::MinExpires)
    }

    /// Content-Length, if it is there.
    ///
    /// # Errors
    /// When it is no number, or several fields disagree.
    pub fn content_length(&self) -> Result<Option<u32>, ValueError> {
        match self.index.content_length {
            ContentLength::Absent => Ok(None),
            ContentLength::Value(n) => Ok(Some(n)),
            ContentLength::Invalid => Err(ValueError::Malformed("Content-Length")),
            ContentLength::Conflicting => Err(ValueError::Repeated(HeaderId::ContentLength)),
        }
    }

    /// The credentials of every field of `id` (Authorization or
    /// Proxy-Authorization) that are of the Digest scheme and well-formed.
    pub fn credentials(&self, id: HeaderId) -> impl Iterator<Item = Credentials<'a>> + use<'a> {
        let bytes = self.bytes;
        self.all(id)
            .filter_map(move |field| Credentials::parse(field.value.of(bytes)).ok())
    }

    fn seconds(&self, id: HeaderId) -> Result<Option<u32>, ValueError> {
        let Some(value) = self.header(id) else {
            return Ok(None);
        };
        lex::delta_seconds(value)
            .map(Some)
            .ok_or(ValueError::Malformed(id.name()))
    }

    fn small_number(&self, id: HeaderId) -> Result<Option<u8>, ValueError> {
        let Some(value) = self.header(id) else {
            return Ok(None);
        };
        let number = lex::decimal(value).ok_or(ValueError::Malformed(id.name()))?;
        u8::try_from(number)
            .map(Some)
            .map_err(|_| ValueError::OutOfRange(id.name()))
    }

    fn required(&self, id: HeaderId) -> Result<&'a [u8], ValueError> {
        self.header(id).ok_or(ValueError::Missing(id))
    }
}
