//! Patterns of `like`.

/// Whether `pattern` matches all of `text`: `%` any string, `_` any one character, `\` makes the next character
/// literal. Allocates nothing; costs at most the pattern's length times the text's.
pub(super) fn like(text: &str, pattern: &str) -> bool {
    let (mut text, mut pattern) = (text, pattern);
    // The text and the pattern after the last `%`, to try again with one more character under it.
    let mut retry: Option<(&str, &str)> = None;
    loop {
        if let Some(rest) = pattern.strip_prefix('%') {
            if rest.is_empty() {
                return true;
            }
            retry = Some((text, rest));
            pattern = rest;
            continue;
        }
        let mut characters = text.chars();
        match (next_symbol(pattern), characters.next()) {
            (None, None) => return true,
            (Some((symbol, rest)), Some(c)) if symbol.is_none_or(|literal| literal == c) => {
                (text, pattern) = (characters.as_str(), rest);
                continue;
            }
            // Starting later leaves even less text for the rest of the pattern.
            (Some(_), None) => return false,
            _ => {}
        }
        let Some((from, rest)) = retry else { return false };
        let mut from = from.chars();
        if from.next().is_none() {
            return false;
        }
        (text, pattern) = (from.as_str(), rest);
        retry = Some((text, rest));
    }
}

/// The pattern's first symbol, a literal or `None` for any character, and what follows it.
fn next_symbol(pattern: &str) -> Option<(Option<char>, &str)> {
    let mut characters = pattern.chars();
    let symbol = match characters.next()? {
        '_' => None,
        '\\' => Some(characters.next().unwrap_or('\\')),
        literal => Some(literal),
    };
    Some((symbol, characters.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_strings() {
        for (text, pattern, expected) in [
            ("", "", true),
            ("", "%", true),
            ("", "_", false),
            ("abc", "abc", true),
            ("abc", "ab", false),
            ("abc", "a%", true),
            ("abc", "%c", true),
            ("abc", "%b%", true),
            ("abc", "%d%", false),
            ("abc", "a_c", true),
            ("abc", "____", false),
            ("aäc", "a_c", true),
            ("abab", "%ab", true),
            ("aXbXc", "a%b%c", true),
            ("mississippi", "m%iss%pi", true),
            ("mississippi", "m%iss%pa", false),
            ("100%", "100\\%", true),
            ("1000", "100\\%", false),
            ("a_b", "a\\_b", true),
            ("axb", "a\\_b", false),
            ("a\\b", "a\\\\b", true),
            ("a%b", "%\\%%", true),
            ("ab", "%\\%%", false),
        ] {
            assert_eq!(like(text, pattern), expected, "{text:?} like {pattern:?}");
        }
    }
}
