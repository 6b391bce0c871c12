//! The state of a response that is being received.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::event_queue::EventQueue;
use super::provider_error::{body_error, content_filter_error, model_refusal_error};
use super::repair::{join_in_value, repair};
use super::response::{Completion, ResponseMessage, WireToolCall};
use super::{decode_error, merge_extra};
use crate::error::{Error, ErrorKind, Result};
use crate::llm::response::REASONING_FIELDS;
use crate::llm::secrets::Secrets;
use crate::llm::tool_call_assembler::{ToolCallAssembler, ToolCallDelta};
use crate::llm::{ChatEvent, ChatResponse, Usage};

/// Turns the parts of a response into events. A complete response is a stream of one part.
pub(in crate::llm) struct StreamState {
    component: &'static str,
    secrets: Secrets,
    assembler: ToolCallAssembler,
    /// Events that were not read yet.
    pub(in crate::llm) pending_events: EventQueue,
    /// The index of the choice that is read: one was requested.
    choice: Option<Option<u64>>,
    usage: Option<Usage>,
    message_extra: Map<String, Value>,
    extra: Map<String, Value>,
    has_read_extra: bool,
    finish_reason: Option<String>,
    pub(in crate::llm) is_complete: bool,
}

/// Decodes the body of a complete response.
pub(in crate::llm) fn decode_chat(
    component: &'static str,
    body: &[u8],
    secrets: &Secrets,
) -> Result<ChatResponse> {
    let mut state = StreamState::new(component, secrets.clone());
    state.feed_part(&String::from_utf8_lossy(body), "response is not a chat completion")?;
    if state.choice.is_none() {
        return Err(Error::new(ErrorKind::Protocol, component, "response is not a chat completion"));
    }
    state.complete()?;
    let mut response = ChatResponse::default();
    state.pending_events.into_iter().for_each(|event| response.apply_event(event));
    Ok(response)
}

impl StreamState {
    pub(in crate::llm) fn new(component: &'static str, secrets: Secrets) -> Self {
        Self {
            component,
            secrets,
            assembler: ToolCallAssembler::new(component),
            pending_events: EventQueue::default(),
            choice: None,
            usage: None,
            message_extra: Map::new(),
            extra: Map::new(),
            has_read_extra: false,
            finish_reason: None,
            is_complete: false,
        }
    }

    /// Adds the data of a server-sent event.
    pub(in crate::llm) fn feed(&mut self, data: &str) -> Result<()> {
        let fed = match data.trim() {
            _ if self.is_complete => Ok(()),
            "" => Ok(()),
            "[DONE]" => self.complete(),
            data => self.feed_part(data, "invalid chunk in the event stream"),
        };
        fed.inspect_err(|_| self.pending_events.finish_texts())
    }

    /// The body has ended without `[DONE]`, which some servers leave out.
    pub(in crate::llm) fn end_of_body(&mut self) -> Result<()> {
        match self.finish_reason {
            Some(_) => self.complete(),
            None => {
                self.pending_events.finish_texts();
                Err(self.truncated_error())
            }
        }
    }

    fn feed_part(&mut self, json: &str, invalid: &'static str) -> Result<()> {
        let mut json = Cow::Borrowed(json);
        // The parts between the first and the last repeat the same fields.
        let is_first = !std::mem::replace(&mut self.has_read_extra, true);
        let mut part = Completion::parse(&json, is_first)
            .or_else(|error| {
                json = Cow::Owned(repair(&json));
                self.pending_events.has_marks = true;
                Completion::parse(&json, is_first).map_err(|_| error)
            })
            .map_err(|error| decode_error(self.component, &error, invalid))?;
        if !is_first && part.is_last() {
            part.extra = Completion::parse(&json, true).unwrap_or_default().extra;
        }
        let Completion { choices, usage, error, extra } = part;
        self.extra.extend(extra.into_iter().filter(|(_, value)| !value.is_null()));
        if let Some(mut error) = error.filter(|error| !error.is_null()) {
            join_in_value(&mut error);
            return Err(body_error(self.component, &error, &self.secrets));
        }
        // Some providers count up in every chunk.
        self.usage = usage.map(Usage::from).or(self.usage);
        for choice in choices.into_iter().flatten() {
            if *self.choice.get_or_insert(choice.index) != choice.index {
                continue;
            }
            match (choice.delta, choice.message) {
                (Some(delta), _) => self.feed_message(delta)?,
                (None, Some(mut message)) => {
                    message.number_tool_calls();
                    self.feed_message(message)?;
                }
                (None, None) => {}
            }
            // An empty reason means that the response goes on.
            if let Some(reason) = choice.finish_reason.filter(|reason| !reason.is_empty()) {
                if reason == "content_filter" {
                    return Err(content_filter_error(self.component));
                }
                self.finish_calls()?;
                self.finish_reason = Some(reason);
            }
        }
        Ok(())
    }

    fn feed_message(&mut self, message: ResponseMessage) -> Result<()> {
        if message.refusal.is_some_and(|refusal| !refusal.is_empty()) {
            return Err(model_refusal_error(self.component));
        }
        let reasoning = REASONING_FIELDS.iter().find_map(|name| message.extra.get(*name)?.as_str());
        if let Some(reasoning) = reasoning.filter(|text| !text.is_empty()) {
            self.pending_events.push_back(ChatEvent::Reasoning(reasoning.to_owned()));
        }
        merge_extra(&mut self.message_extra, message.extra);
        if let Some(text) = message.content.filter(|text| !text.is_empty()) {
            self.pending_events.push_back(ChatEvent::Text(text));
        }
        for call in message.tool_calls.into_iter().flatten() {
            self.assembler.add(ToolCallDelta::from(call), &mut self.pending_events)?;
        }
        Ok(())
    }

    fn finish_calls(&mut self) -> Result<()> {
        self.assembler.finish(&mut self.pending_events)
    }

    fn complete(&mut self) -> Result<()> {
        self.finish_calls()?;
        let reason = match self.finish_reason.take() {
            Some(reason) => reason,
            None if self.choice.is_none() => {
                return Err(Error::new(ErrorKind::Protocol, self.component, "response without a choice"));
            }
            // Some servers leave it out, or empty.
            None if self.assembler.is_empty() => "stop".to_owned(),
            None => "tool_calls".to_owned(),
        };
        self.pending_events.finish_texts();
        let (message, response) = (std::mem::take(&mut self.message_extra), std::mem::take(&mut self.extra));
        if !message.is_empty() || !response.is_empty() {
            self.pending_events.push_back(ChatEvent::ExtraFields { message, response });
        }
        if let Some(usage) = self.usage {
            self.pending_events.push_back(ChatEvent::Usage(usage));
        }
        self.pending_events.push_back(ChatEvent::Finished { reason });
        self.is_complete = true;
        Ok(())
    }

    fn truncated_error(&self) -> Error {
        Error::new(ErrorKind::Transport, self.component, "stream ended before [DONE]")
    }
}

impl From<WireToolCall> for ToolCallDelta {
    fn from(call: WireToolCall) -> Self {
        let function = call.function.unwrap_or_default();
        Self {
            index: call.index,
            id: call.id.unwrap_or_default(),
            name: function.name.unwrap_or_default(),
            arguments: function.arguments.unwrap_or_default(),
            extra: call.extra,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::llm::ToolCall;

    fn decode(body: &Value) -> Result<ChatResponse> {
        decode_chat("test", body.to_string().as_bytes(), &Secrets::default())
    }

    fn stream(parts: &[&str]) -> Result<ChatResponse> {
        let mut state = StreamState::new("test", Secrets::default());
        parts.iter().try_for_each(|part| state.feed(part))?;
        if !state.is_complete {
            state.end_of_body()?;
        }
        let mut response = ChatResponse::default();
        state.pending_events.into_iter().for_each(|event| response.apply_event(event));
        Ok(response)
    }

    #[test]
    fn a_response_has_text_calls_usage_and_extra_fields() {
        let body = json!({"id": "x", "choices": [{"index": 0, "finish_reason": "tool_calls", "message": {
            "role": "assistant", "content": null, "refusal": null, "reasoning_content": "because",
            "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}],
        }}], "usage": {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12,
                       "prompt_tokens_details": {"cached_tokens": 4},
                       "completion_tokens_details": {"reasoning_tokens": 2}}});
        let response = decode(&body).expect("a completion");
        assert_eq!(response.tool_calls, [ToolCall::new("c", "f", "{}")]);
        assert_eq!((response.reasoning(), &response.extra["id"]), (Some("because"), &json!("x")));
        let mut usage = Usage::new(9, 3);
        (usage.thinking_tokens, usage.cached_tokens) = (2, 4);
        assert_eq!(response.usage, usage);
    }

    #[test]
    fn odd_fields_do_not_lose_a_response() {
        let message = |message: Value| decode(&json!({"choices": [{"message": message}], "usage": null}));
        let response = message(json!({"content": [{"type": "text", "text": "a"}, {"type": "image"}, "b"]}));
        assert_eq!(response.expect("parts").content.as_deref(), Some("ab"));
        let call = json!({"index": null, "function": {"name": "f", "arguments": {"x": 1}}});
        let response = message(json!({"content": null, "tool_calls": [call]})).expect("an object");
        assert_eq!(
            (&*response.tool_calls[0].arguments, response.finish_reason.as_deref()),
            ("{\"x\":1}", Some("tool_calls"))
        );
        let body = json!({"choices": [{"message": {"content": "hi"}, "finish_reason": ""}],
            "usage": {"prompt_tokens": 1.6, "completion_tokens": null, "total_tokens": -1, "prompt_tokens_details": 7}});
        let response = decode(&body).expect("odd counts");
        assert_eq!((response.usage, response.finish_reason.as_deref()), (Usage::new(2, 0), Some("stop")));
    }

    #[test]
    fn streams_end_after_a_finish_reason_or_complete_calls() {
        let text = r#"{"choices": [{"delta": {"content": "hi"}, "finish_reason": ""}]}"#;
        let stop = r#"{"choices": [{"delta": {}, "finish_reason": "stop"}]}"#;
        let nothing = r#"{"choices": null, "usage": {"prompt_tokens": 1}}"#;
        let response = stream(&[text, nothing, stop]).expect("no [DONE]");
        assert_eq!((response.content.as_deref(), response.usage.input_tokens), (Some("hi"), 1));
        let call = r#"{"choices": [{"delta": {"tool_calls": [{"id": "1", "function": {"name": "f"}}]}, "finish_reason": ""}]}"#;
        let response = stream(&[call, "[DONE]"]).expect("a call");
        assert_eq!(response.finish_reason.as_deref(), Some("tool_calls"));
        assert_eq!(stream(&[text]).expect_err("truncated").kind(), ErrorKind::Transport);
    }

    #[test]
    fn several_choices_are_not_mixed() {
        let part = |index: u8, text: &str| {
            json!({"choices": [{"index": index, "delta": {"content": text}, "finish_reason": "stop"}]})
                .to_string()
        };
        let parts = [part(0, "a"), part(1, "x"), part(0, "b")];
        let response = stream(&parts.each_ref().map(String::as_str)).expect("a response");
        assert_eq!(response.content.as_deref(), Some("ab"));
    }

    #[test]
    fn a_surrogate_pair_split_over_two_chunks_is_one_character() {
        let part = |text: &str| format!(r#"{{"choices": [{{"delta": {{"content": "{text}"}}}}]}}"#);
        let stop = r#"{"choices": [{"finish_reason": "stop"}]}"#;
        let response = stream(&[&part("a\\ud83e"), &part("\\udd80b"), stop]).expect("a response");
        assert_eq!(response.content.as_deref(), Some("a🦀b"));
    }

    #[test]
    fn split_surrogate_pairs_of_several_fields_are_not_mixed() {
        let part = |delta: &str| format!(r#"{{"choices": [{{"delta": {{{delta}}}}}]}}"#);
        let call = |index: u8, name: &str, arguments: &str| {
            part(&format!(
                r#""tool_calls": [{{"index": {index}, "function": {{"name": {name}, "arguments": "{arguments}"}}}}]"#
            ))
        };
        let parts = [
            part(r#""content": "a\ud83e", "reasoning_content": "b\ud83d""#),
            call(0, "\"f\"", r#"{\"x\": \"\ud83e"#),
            call(1, "\"g\"", r#"{\"y\": \"\ud83d"#),
            call(0, "null", r#"\udd80\"}"#),
            part(r#""reasoning_content": "\udc4bc""#),
            call(1, "null", r#"\udc4b\"}"#),
            part(r#""content": "\udd80d""#),
            r#"{"choices": [{"finish_reason": "tool_calls"}]}"#.to_owned(),
        ];
        let response = stream(&parts.each_ref().map(String::as_str)).expect("a response");
        assert_eq!((response.content.as_deref(), response.reasoning()), (Some("a🦀d"), Some("b👋c")));
        let arguments: Vec<_> = response.tool_calls.iter().map(|call| &*call.arguments).collect();
        assert_eq!(arguments, [r#"{"x": "🦀"}"#, r#"{"y": "👋"}"#]);
    }

    #[test]
    fn half_a_surrogate_pair_at_the_end_is_replaced_before_the_end_or_the_error() {
        let half = r#"{"choices": [{"delta": {"content": "a\ud83e", "reasoning": "b\ud83e"}}]}"#;
        let stop = r#"{"choices": [{"finish_reason": "stop"}]}"#;
        let response = stream(&[half, stop]).expect("a response");
        assert_eq!(response.content.as_deref(), Some("a\u{fffd}"));
        assert_eq!(response.reasoning(), Some("b\u{fffd}"));
        let text = |after: &[&str]| {
            let mut state = StreamState::new("test", Secrets::default());
            state.feed(half).expect("text");
            let fed = after.iter().try_for_each(|part| state.feed(part)).and_then(|()| state.end_of_body());
            fed.expect_err("no end");
            let mut response = ChatResponse::default();
            state.pending_events.into_iter().for_each(|event| response.apply_event(event));
            response.content
        };
        assert_eq!(text(&[]).as_deref(), Some("a\u{fffd}"));
        assert_eq!(text(&["nonsense"]).as_deref(), Some("a\u{fffd}"));
        let body =
            r#"{"choices": [{"message": {"content": "a\ud83e"}, "finish_reason": "stop"}], "id": "\udd80"}"#;
        let response = decode_chat("test", body.as_bytes(), &Secrets::default()).expect("a completion");
        assert_eq!(
            (response.content.as_deref(), &response.extra["id"]),
            (Some("a\u{fffd}"), &json!("\u{fffd}"))
        );
    }

    #[test]
    fn numbers_that_are_not_json_do_not_lose_a_response() {
        let logprobs = r#""logprobs": {"content": [{"logprob": NaN, "top": [-Infinity, Infinity]}]}"#;
        let complete = format!(
            r#"{{"choices": [{{"message": {{"content": "is NaN", "score": -Infinity}}, {logprobs}, "finish_reason": "stop"}}],
                "timings": {{"per_second": NaN}}, "usage": {{"prompt_tokens": 7, "completion_tokens": NaN}}}}"#
        );
        let chunk = complete.replace("message", "delta");
        let decoded = decode_chat("test", complete.as_bytes(), &Secrets::default());
        for response in [decoded, stream(&[&chunk, "[DONE]"])] {
            let response = response.expect("a completion");
            assert_eq!((response.content.as_deref(), response.usage), (Some("is NaN"), Usage::new(7, 0)));
            assert_eq!(response.extra["timings"], json!({"per_second": null}));
        }
    }

    #[test]
    fn reasoning_text_is_streamed_and_kept_for_the_next_request() {
        let part = |text: &str| format!(r#"{{"choices": [{{"delta": {{"reasoning_content": "{text}"}}}}]}}"#);
        let stop = r#"{"id": "x", "choices": [{"delta": {"content": "done"}, "finish_reason": "stop"}]}"#;
        let response = stream(&[&part("be"), &part("cause"), stop]).expect("a response");
        assert_eq!((response.reasoning(), &response.extra["id"]), (Some("because"), &json!("x")));
    }

    #[test]
    fn anything_else_than_a_completion_is_a_protocol_error() {
        for body in ["", "not json", "{}", "{\"choices\":[]}", "[1,2]"] {
            let error = decode_chat("test", body.as_bytes(), &Secrets::default()).expect_err(body);
            assert_eq!(error.kind(), ErrorKind::Protocol, "{body}");
        }
        let error = decode(&json!({"choices": "private words"})).expect_err("not a list");
        assert!(!format!("{error} {error:?}").contains("private"), "{error:?}");
    }

    #[test]
    fn a_thousand_tool_calls_are_too_many() {
        let call = json!({"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}});
        let calls = vec![call; 1000];
        let body = json!({"choices": [{"message": {"tool_calls": calls}, "finish_reason": "tool_calls"}]});
        assert_eq!(decode(&body).expect_err("too many").kind(), ErrorKind::TooLarge);
    }

    #[test]
    fn an_error_in_a_successful_response_is_an_error() {
        let body = json!({"error": {"code": 429, "message": "slow down"}});
        assert_eq!(decode(&body).expect_err("an error").kind(), ErrorKind::RateLimited);
        assert_eq!(stream(&[&body.to_string()]).expect_err("an error").kind(), ErrorKind::RateLimited);
    }
}
