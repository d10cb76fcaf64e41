//! JSON-RPC 2.0: from a line to calls, and from results to a line.

use serde_json::{Value, json};

use crate::commands::{CommandError, Commands, Params};

/// Answers one line. `None`: the line only notified.
pub async fn answer(commands: &dyn Commands, line: &[u8]) -> Option<Value> {
    match serde_json::from_slice(line) {
        Err(error) => Some(failure(
            Value::Null,
            -32700,
            &format!("parse error: {error}"),
        )),
        Ok(Value::Array(batch)) if batch.is_empty() => Some(failure(
            Value::Null,
            -32600,
            "invalid request: an empty batch",
        )),
        Ok(Value::Array(batch)) => {
            let mut answers = Vec::with_capacity(batch.len());
            for request in batch {
                answers.extend(answer_one(commands, request).await);
            }
            (!answers.is_empty()).then_some(Value::Array(answers))
        }
        Ok(request) => answer_one(commands, request).await,
    }
}

async fn answer_one(commands: &dyn Commands, request: Value) -> Option<Value> {
    let Value::Object(mut request) = request else {
        return Some(failure(
            Value::Null,
            -32600,
            "invalid request: expected an object",
        ));
    };
    let id = request.remove("id");
    let invalid = |why: &str| {
        let id = id.clone().unwrap_or(Value::Null);
        Some(failure(id, -32600, &format!("invalid request: {why}")))
    };
    if matches!(
        id,
        Some(Value::Array(_) | Value::Object(_) | Value::Bool(_))
    ) {
        return Some(failure(
            Value::Null,
            -32600,
            "invalid request: `id` must be a text or number",
        ));
    }
    if request.get("jsonrpc").and_then(Value::as_str) != Some("2.0") {
        return invalid("`jsonrpc` must be \"2.0\"");
    }
    let Some(Value::String(method)) = request.remove("method") else {
        return invalid("`method` must be a text");
    };
    let params = match request.remove("params") {
        None => Params::None,
        Some(Value::Array(values)) => Params::Positional(values),
        Some(Value::Object(values)) => Params::Named(values),
        Some(_) => return invalid("`params` must be a list or an object"),
    };
    let result = commands.call(&method, params).await;
    let id = id?;
    Some(match result {
        Ok(result) => json!({ "jsonrpc": "2.0", "id": id, "result": result }),
        Err(error) => command_failure(id, &error),
    })
}

fn command_failure(id: Value, error: &CommandError) -> Value {
    failure(id, error.code(), &error.to_string())
}

fn failure(id: Value, code: i32, message: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": message } })
}
