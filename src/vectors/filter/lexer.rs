//! Text to tokens.

use super::invalid;
use crate::error::Result;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Word(String),
    Text(String),
    Integer(u64),
    Float(f64),
    /// `{name}`.
    Param(String),
    /// Brackets, operators and commas.
    Sign(&'static str),
    End,
}

/// Longer signs before their beginnings.
const SIGNS: [&str; 22] = [
    "==", "!=", "<=", ">=", "&&", "||", "**", "<", ">", "!", "+", "-", "*", "/", "%", "(", ")", "[", "]",
    ",", ".", ";",
];

/// The tokens of `text` with the byte each begins at; the last one is [`Token::End`].
pub(super) fn tokens(text: &str) -> Result<Vec<(usize, Token)>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    while let Some(first) = text[at..].chars().next() {
        let rest = &text[at..];
        let (token, length) = match first {
            _ if first.is_whitespace() => {
                at += first.len_utf8();
                continue;
            }
            'a'..='z' | 'A'..='Z' | '_' | '$' => {
                let length =
                    rest.find(|c: char| !c.is_alphanumeric() && c != '_' && c != '$').unwrap_or(rest.len());
                (Token::Word(rest[..length].to_owned()), length)
            }
            '0'..='9' => number(rest, at)?,
            '\'' | '"' => string(rest, at)?,
            '{' => {
                let end = rest
                    .find('}')
                    .ok_or_else(|| invalid(format!("the parameter at byte {at} has no end")))?;
                (Token::Param(rest[1..end].trim().to_owned()), end + 1)
            }
            _ => match SIGNS.iter().find(|sign| rest.starts_with(**sign)) {
                Some(sign) => (Token::Sign(sign), sign.len()),
                None => return Err(invalid(format!("unexpected {first:?} at byte {at}"))),
            },
        };
        tokens.push((at, token));
        at += length;
    }
    tokens.push((text.len(), Token::End));
    Ok(tokens)
}

fn number(rest: &str, at: usize) -> Result<(Token, usize)> {
    let bytes = rest.as_bytes();
    let mut length = bytes.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let mut is_float = false;
    if bytes.get(length) == Some(&b'.') && bytes.get(length + 1).is_some_and(u8::is_ascii_digit) {
        is_float = true;
        length += 1 + bytes[length + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    }
    if bytes.get(length).is_some_and(|byte| matches!(byte, b'e' | b'E')) {
        let sign = usize::from(bytes.get(length + 1).is_some_and(|byte| matches!(byte, b'+' | b'-')));
        let digits = bytes.iter().skip(length + 1 + sign).take_while(|byte| byte.is_ascii_digit()).count();
        if digits > 0 {
            is_float = true;
            length += 1 + sign + digits;
        }
    }
    let text = &rest[..length];
    let token = if is_float {
        text.parse().ok().filter(|number: &f64| number.is_finite()).map(Token::Float)
    } else {
        text.parse().ok().map(Token::Integer)
    };
    token.map(|token| (token, length)).ok_or_else(|| invalid(format!("the number at byte {at} is too large")))
}

fn string(rest: &str, at: usize) -> Result<(Token, usize)> {
    let mut chars = rest.char_indices();
    let quote = chars.next().map(|(_, quote)| quote);
    let mut text = String::new();
    while let Some((offset, c)) = chars.next() {
        match c {
            _ if Some(c) == quote => return Ok((Token::Text(text), offset + 1)),
            '\\' => match chars.next().map(|(_, escaped)| escaped) {
                Some('n') => text.push('\n'),
                Some('t') => text.push('\t'),
                Some('r') => text.push('\r'),
                Some('b') => text.push('\u{8}'),
                Some('f') => text.push('\u{c}'),
                Some('u') => {
                    let digits: String = chars.by_ref().take(4).map(|(_, digit)| digit).collect();
                    let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                    text.push(
                        code.ok_or_else(|| invalid(format!("bad \\u escape in the text at byte {at}")))?,
                    );
                }
                Some(other) => text.push(other),
                None => break,
            },
            _ => text.push(c),
        }
    }
    Err(invalid(format!("the text that begins at byte {at} has no end")))
}
