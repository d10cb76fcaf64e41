//! The interface `message`.

use std::borrow::Cow;

use sipbox_sip::lex;

use crate::bindings::wit::message as wit;
use crate::bindings::wit::types::{Body, Edit, Error, Header};
use crate::cx::CallCx;
use crate::view::head;

type Outcome = wasmtime::Result<Result<(), Error>>;

impl CallCx {
    fn edit(&mut self, edit: Edit) -> Outcome {
        self.edits(vec![edit])
    }

    fn edits(&mut self, edits: Vec<Edit>) -> Outcome {
        self.enter()?;
        Ok(self.stage_edits(edits)?.map_err(Error::from))
    }
}

impl wit::Host for CallCx {
    // The linker replaces this by a function that lowers from shared buffers.
    fn view(&mut self) -> wasmtime::Result<wit::MessageView> {
        self.enter()?;
        let (text, index) = self.owned_view();
        Ok(wit::MessageView { text, index })
    }

    fn bytes(&mut self) -> wasmtime::Result<Vec<u8>> {
        self.enter()?;
        Ok(head(self.message()).to_vec())
    }

    fn method(&mut self) -> wasmtime::Result<String> {
        self.enter()?;
        let message = self.message();
        if message.is_request() {
            return Ok(text(message.method_token()));
        }
        Ok(message
            .cseq()
            .map_or_else(|_| String::new(), |cseq| text(cseq.method)))
    }

    fn request_uri(&mut self) -> wasmtime::Result<String> {
        self.enter()?;
        Ok(text(self.message().request_uri()))
    }

    fn status(&mut self) -> wasmtime::Result<u16> {
        self.enter()?;
        Ok(self.message().status().unwrap_or(0))
    }

    fn header(&mut self, name: String) -> wasmtime::Result<Option<String>> {
        self.enter()?;
        let message = self.message();
        let field = message.by_name(name.as_bytes()).next();
        Ok(field.map(|field| text(&lex::unfold(message.get(field.value)))))
    }

    fn headers(&mut self, name: String) -> wasmtime::Result<Vec<String>> {
        self.enter()?;
        let message = self.message();
        let fields = message.by_name(name.as_bytes());
        Ok(fields
            .map(|field| text(&lex::unfold(message.get(field.value))))
            .collect())
    }

    fn body(&mut self) -> wasmtime::Result<Vec<u8>> {
        self.enter()?;
        Ok(self.message().body().to_vec())
    }

    fn set_header(&mut self, name: String, value: String) -> Outcome {
        self.edit(Edit::SetHeader(Header { name, value }))
    }

    fn add_header(&mut self, name: String, value: String) -> Outcome {
        self.edit(Edit::AddHeader(Header { name, value }))
    }

    fn remove_header(&mut self, name: String) -> Outcome {
        self.edit(Edit::RemoveHeader(name))
    }

    fn set_request_uri(&mut self, uri: String) -> Outcome {
        self.edit(Edit::SetRequestUri(uri))
    }

    fn set_body(&mut self, body: Body) -> Outcome {
        self.edit(Edit::SetBody(body))
    }

    fn apply(&mut self, edits: Vec<Edit>) -> Outcome {
        self.edits(edits)
    }
}

/// Bytes of the wire as a string: what is not UTF-8 is replaced.
pub(crate) fn text(bytes: &[u8]) -> String {
    match String::from_utf8_lossy(bytes) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    }
}
