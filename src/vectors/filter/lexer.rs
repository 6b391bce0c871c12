//! Splits the text of a filter into tokens.

use super::invalid;
use crate::error::Result;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    Word(String),
    String(String),
    Integer(u64),
    Float(f64),
    /// `{name}`.
    Param(String),
    /// Brackets, operators and commas.
    Symbol(&'static str),
    End,
}

/// Longer symbols before their prefixes.
const SYMBOLS: [&str; 22] = [
    "==", "!=", "<=", ">=", "&&", "||", "**", "<", ">", "!", "+", "-", "*", "/", "%", "(", ")", "[", "]",
    ",", ".", ";",
];

/// The tokens of `text`, each with its byte offset; the last one is [`Token::End`].
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
                let end =
                    rest.find('}').ok_or_else(|| invalid(format!("unterminated parameter at byte {at}")))?;
                (Token::Param(rest[1..end].trim().to_owned()), end + 1)
            }
            _ => match SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
                Some(symbol) => (Token::Symbol(symbol), symbol.len()),
                None => return Err(invalid(format!("unexpected character {first:?} at byte {at}"))),
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
    token.map(|token| (token, length)).ok_or_else(|| invalid(format!("number out of range at byte {at}")))
}

fn string(rest: &str, at: usize) -> Result<(Token, usize)> {
    let mut chars = rest.char_indices();
    let quote = chars.next().map(|(_, quote)| quote);
    let mut text = String::new();
    while let Some((offset, c)) = chars.next() {
        match c {
            _ if Some(c) == quote => return Ok((Token::String(text), offset + 1)),
            '\\' => {
                match chars.next().map(|(_, escaped)| escaped) {
                    Some('n') => text.push('\n'),
                    Some('t') => text.push('\t'),
                    Some('r') => text.push('\r'),
                    Some('b') => text.push('\u{8}'),
                    Some('f') => text.push('\u{c}'),
                    Some('u') => {
                        let digits: String = chars.by_ref().take(4).map(|(_, digit)| digit).collect();
                        let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
                        text.push(code.ok_or_else(|| {
                            invalid(format!("invalid \\u escape in the string at byte {at}"))
                        })?);
                    }
                    Some(other) => text.push(other),
                    None => break,
                }
            }
            _ => text.push(c),
        }
    }
    Err(invalid(format!("unterminated string at byte {at}")))
}
