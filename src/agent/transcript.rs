//! The last exchanges of a conversation, as a chat agent writes them into its working memory.

use crate::memory::WorkingMemory;
use crate::support::floor_char_boundary;

const SECTION: &str = "### CONVERSATION FLOW:";
const NEXT_SECTION: &str = "\n### ";
const USER: &str = "- User: ";

/// Appends an exchange to the memory's conversation flow. The section holds at most `max_bytes`: the oldest exchanges
/// are removed, and one that is too long by itself is truncated. Other sections are unchanged.
pub(super) fn append_exchange(
    memory: &WorkingMemory,
    user: &str,
    assistant: &str,
    max_bytes: usize,
) -> WorkingMemory {
    let text = memory.as_str();
    let (before, flow, after) = match text.find(SECTION) {
        None => (text, "", ""),
        Some(at) => {
            let body = at + SECTION.len();
            let end = text[body..].find(NEXT_SECTION).map_or(text.len(), |next| body + next);
            (&text[..at], &text[body..end], &text[end..])
        }
    };
    let mut exchanges: Vec<String> = parse_exchanges(flow).map(str::to_owned).collect();
    let half = max_bytes / 2;
    exchanges.push(format!(
        "{USER}{}\n  Assistant: {}",
        single_line(user, half),
        single_line(assistant, half)
    ));
    let mut bytes: usize = exchanges.iter().map(|exchange| exchange.len() + 1).sum();
    while bytes > max_bytes && exchanges.len() > 1 {
        bytes -= exchanges.remove(0).len() + 1;
    }
    let gap = if before.is_empty() || before.ends_with('\n') { "" } else { "\n\n" };
    WorkingMemory::new(format!("{before}{gap}{SECTION}\n{}\n{after}", exchanges.join("\n")).trim_end())
}

/// The exchanges in a section; any other text in it is a placeholder.
fn parse_exchanges(flow: &str) -> impl Iterator<Item = &str> {
    let starts: Vec<usize> =
        flow.match_indices(USER).map(|(at, _)| at).filter(|at| at_line_start(flow, *at)).collect();
    let ends: Vec<usize> = starts.iter().skip(1).copied().chain([flow.len()]).collect();
    starts.into_iter().zip(ends).map(|(start, end)| flow[start..end].trim_end())
}

fn at_line_start(text: &str, at: usize) -> bool {
    at == 0 || text.as_bytes()[at - 1] == b'\n'
}

/// `text` on one line, of at most about `max_bytes`.
fn single_line(text: &str, max_bytes: usize) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() > max_bytes {
        line.truncate(floor_char_boundary(&line, max_bytes));
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exchanges_replace_the_placeholder_and_other_sections_are_unchanged() {
        let memory = append_exchange(&WorkingMemory::initialize_memory(), "hello\nthere", "hi", 1000);
        let memory = append_exchange(&memory, "how are you", "well", 1000);
        let text = memory.as_str();
        assert!(
            text.contains("- User: hello there\n  Assistant: hi\n- User: how are you\n  Assistant: well\n"),
            "{text}"
        );
        assert!(!text.contains("just starting"), "{text}");
        for section in ["### USER CONTEXT:", "### CURRENT FOCUS:", "### INTERACTION TONE:"] {
            assert_eq!(text.matches(section).count(), 1, "{text}");
        }
    }

    #[test]
    fn the_oldest_exchanges_are_removed_when_there_are_too_many() {
        let mut memory = WorkingMemory::initialize_memory();
        for n in 0..100 {
            memory = append_exchange(&memory, &format!("question {n}"), "answer", 300);
        }
        let text = memory.as_str();
        assert!(text.len() < 300 + 600, "{}", text.len());
        assert!(text.contains("question 99") && !text.contains("question 1\n"), "{text}");
    }

    #[test]
    fn an_exchange_that_is_too_long_is_truncated_at_a_character() {
        let memory = append_exchange(&WorkingMemory::new(""), &"ä".repeat(1000), "short", 101);
        assert!(memory.as_str().len() < 200);
        assert!(memory.as_str().contains('…'));
    }

    #[test]
    fn a_memory_without_the_section_gets_one_and_keeps_its_text() {
        let memory = append_exchange(&WorkingMemory::new("written by another service"), "q", "a", 100);
        assert_eq!(
            memory.as_str(),
            "written by another service\n\n### CONVERSATION FLOW:\n- User: q\n  Assistant: a"
        );
    }
}
