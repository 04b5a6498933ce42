//! The words of an expression.

use super::{Fault, Value};

#[derive(Debug, Clone)]
pub(super) enum Token {
    Name(String),
    Literal(Value<'static>),
    Symbol(&'static str),
}

/// The longest come first.
const SYMBOLS: &[&str] = &[
    "==", "!=", "<=", ">=", "&&", "||", "(", ")", "[", "]", "{", "}", ".", ",", "?", ":", "<", ">", "!", "-", "+", "*",
    "/", "%",
];

/// Takes a text apart.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, Fault> {
    let mut out = Vec::new();
    let mut rest = text;
    loop {
        rest = rest.trim_start();
        if let Some(comment) = rest.strip_prefix("//") {
            rest = comment.find('\n').and_then(|end| comment.get(end..)).unwrap_or_default();
            continue;
        }
        let Some(first) = rest.chars().next() else { return Ok(out) };
        let (token, after) = if let Some(found) = string(rest)? {
            found
        } else if first.is_ascii_alphabetic() || first == '_' {
            name(rest)
        } else if first.is_ascii_digit() || (first == '.' && rest.chars().nth(1).is_some_and(|c| c.is_ascii_digit())) {
            number(rest)?
        } else if first == '`' {
            let inner = rest.get(1..).unwrap_or_default();
            let (quoted, after) = inner.split_once('`').ok_or_else(|| syntax("a field name does not end"))?;
            (Token::Name(quoted.to_owned()), after)
        } else {
            let symbol = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol));
            let symbol = symbol.ok_or_else(|| syntax(&format!("token recognition error at: '{first}'")))?;
            (Token::Symbol(symbol), rest.strip_prefix(symbol).unwrap_or_default())
        };
        out.push(token);
        rest = after;
    }
}

pub(super) fn syntax(message: &str) -> Fault {
    Fault::new(format!("Syntax error: {message}"))
}

fn name(text: &str) -> (Token, &str) {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    let (name, after) = text.split_at_checked(end).unwrap_or((text, ""));
    let token = match name {
        "true" => Token::Literal(Value::Bool(true)),
        "false" => Token::Literal(Value::Bool(false)),
        "null" => Token::Literal(Value::Null),
        "in" => Token::Symbol("in"),
        _ => Token::Name(name.to_owned()),
    };
    (token, after)
}

fn number(text: &str) -> Result<(Token, &str), Fault> {
    let bad = || syntax("invalid number");
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        let end = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
        let (digits, after) = hex.split_at_checked(end).ok_or_else(bad)?;
        return integer(digits, 16, after);
    }
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_digit);
    let mut end = 0;
    let mut whole = true;
    while let Some(byte) = bytes.get(end) {
        match byte {
            b'0'..=b'9' => {}
            b'.' if whole && digit(end + 1) => whole = false,
            b'e' | b'E' if digit(end + 1) => whole = false,
            b'e' | b'E' if matches!(bytes.get(end + 1), Some(b'-' | b'+')) && digit(end + 2) => {
                whole = false;
                end += 1;
            }
            _ => break,
        }
        end += 1;
    }
    let (digits, after) = text.split_at_checked(end).ok_or_else(bad)?;
    if whole {
        return integer(digits, 10, after);
    }
    Ok((Token::Literal(Value::Double(digits.parse().map_err(|_| bad())?)), after))
}

fn integer<'t>(digits: &str, radix: u32, after: &'t str) -> Result<(Token, &'t str), Fault> {
    let number = u64::from_str_radix(digits, radix).map_err(|_| syntax("invalid int literal"))?;
    if let Some(after) = after.strip_prefix(['u', 'U']) {
        return Ok((Token::Literal(Value::Uint(number)), after));
    }
    // The sign is an operator; only `-9223372036854775808` needs a number beyond the others.
    let number = i64::try_from(number)
        .or_else(|_| if number == i64::MIN.unsigned_abs() { Ok(i64::MIN) } else { Err(()) })
        .map_err(|()| syntax("invalid int literal"))?;
    Ok((Token::Literal(Value::Int(number)), after))
}

/// A text or bytes, with what comes after it; none if another token begins here.
fn string(text: &str) -> Result<Option<(Token, &str)>, Fault> {
    let Some((prefix_end, _)) = text.char_indices().take(3).find(|(_, c)| matches!(c, '\'' | '"')) else {
        return Ok(None);
    };
    let (prefix, quoted) = text.split_at_checked(prefix_end).unwrap_or_default();
    let (raw, bytes) = match prefix {
        "" => (false, false),
        "r" | "R" => (true, false),
        "b" | "B" => (false, true),
        "br" | "bR" | "Br" | "BR" | "rb" | "rB" | "Rb" | "RB" => (true, true),
        _ => return Ok(None),
    };
    let quote = ["'''", "\"\"\"", "'", "\""].into_iter().find(|quote| quoted.starts_with(quote));
    let Some((quote, mut rest)) = quote.and_then(|quote| Some((quote, quoted.strip_prefix(quote)?))) else {
        return Ok(None);
    };
    let mut out = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix(quote) {
            let value = if bytes {
                Value::Bytes(out.into())
            } else {
                Value::String(String::from_utf8(out).map_err(|_| syntax("invalid text"))?.into())
            };
            return Ok(Some((Token::Literal(value), after)));
        }
        let mut chars = rest.chars();
        match chars.next() {
            None => return Err(syntax("a text does not end")),
            Some('\n') if quote.len() == 1 => return Err(syntax("a text does not end on its line")),
            Some('\\') if !raw => rest = escape(chars.as_str(), bytes, &mut out)?,
            Some(c) => {
                out.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = chars.as_str();
            }
        }
    }
}

/// Reads what follows a backslash.
fn escape<'t>(text: &'t str, bytes: bool, out: &mut Vec<u8>) -> Result<&'t str, Fault> {
    let bad = || syntax("unable to unescape string");
    let mut chars = text.chars();
    let letter = chars.next().ok_or_else(bad)?;
    let (length, radix, start) = match letter {
        'x' | 'X' => (2, 16, 1),
        'u' => (4, 16, 1),
        'U' => (8, 16, 1),
        '0'..='3' => (3, 8, 0),
        _ => {
            out.push(match letter {
                'a' => 7,
                'b' => 8,
                'f' => 12,
                'n' => b'\n',
                'r' => b'\r',
                't' => b'\t',
                'v' => 11,
                '\\' | '?' | '"' | '\'' | '`' => u8::try_from(letter).map_err(|_| bad())?,
                _ => return Err(bad()),
            });
            return Ok(chars.as_str());
        }
    };
    let digits = text.get(start..start + length).ok_or_else(bad)?;
    let code = u32::from_str_radix(digits, radix).map_err(|_| bad())?;
    if bytes && length < 4 {
        out.push(u8::try_from(code).map_err(|_| bad())?);
    } else {
        let c = char::from_u32(code).ok_or_else(bad)?;
        out.extend(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Ok(text.get(start + length..).unwrap_or_default())
}
