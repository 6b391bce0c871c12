//! The page of the example `web_service` in a browser.

mod load;
mod service;

use std::path::PathBuf;
use std::time::Duration;

use arshai_test_support::{Browser, McpServer, until};
use serde_json::json;

use service::Service;

/// Long enough that only a promise broken reaches it.
const LONG: Duration = Duration::from_secs(60);

const ENTER: &str = "\u{e007}";
const TAB: &str = "\u{e004}";
const ESCAPE: &str = "\u{e00c}";

/// The text of the last answer.
const ANSWER: &str = "[...document.querySelectorAll('.text')].at(-1)?.textContent";
/// How the last answer ended.
const END: &str = "[...document.querySelectorAll('.end')].at(-1)?.textContent";

/// A browser on the page of a service, with the first state shown.
fn open(service: &Service) -> Browser {
    let browser = Browser::start();
    browser.open(&service.url("/"));
    until("the components are shown", LONG, || {
        (browser.eval("document.querySelectorAll('.component').length").as_u64()? > 2).then_some(())
    });
    browser
}

fn wait_for(browser: &Browser, what: &str, expression: &str) {
    until(what, LONG, || (browser.eval(expression) == true).then_some(()));
}

/// Asks by keyboard, as the page has the focus in its message.
fn ask(browser: &Browser, question: &str) {
    browser.type_keys(&format!("{question}{ENTER}"));
}

/// The end of an answer, and the answer.
fn answer(browser: &Browser, question: &str) -> (String, String) {
    ask(browser, question);
    let end = until("the answer ends", LONG, || Some(browser.text(END)).filter(|end| !end.is_empty()));
    (end, browser.text(ANSWER))
}

fn used(key: &str) -> String {
    format!(
        "Number(document.querySelector('[data-key=\"{key}\"] [role=meter]').getAttribute('aria-valuenow'))"
    )
}

fn width(key: &str) -> String {
    format!("document.querySelector('[data-key=\"{key}\"] .bar i').getBoundingClientRect().width")
}

fn screenshot(browser: &Browser, name: &str) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/web");
    std::fs::create_dir_all(&folder).expect("the folder is ours");
    browser.screenshot(&folder.join(name));
}

#[test]
fn a_message_sent_by_keyboard_is_answered_word_by_word() {
    let service = Service::start(&[]);
    let browser = open(&service);
    ask(&browser, "hello");
    let mut seen = vec![String::new()];
    while browser.text(END).is_empty() {
        let text = browser.text(ANSWER);
        let last = seen.last().expect("it is never empty");
        assert!(text.starts_with(last.as_str()), "{last:?} became {text:?}");
        if text != *last {
            seen.push(text);
        }
    }
    assert!(seen.len() > 8, "an answer of eighty words came in {} pieces", seen.len());
    assert!(browser.text(END).contains("1 model call"), "{}", browser.text(END));
    assert_eq!(browser.text("document.activeElement.id"), "message", "the next message can be typed");
    assert_eq!(browser.text("document.getElementById('announcer').textContent"), browser.text(ANSWER));
    let (_, first) = answer(&browser, "What was my first message?");
    assert!(first.ends_with("hello"), "{first}");
}

#[test]
fn tools_are_shown_as_they_start_and_finish_with_what_they_returned() {
    let service = Service::start(&[]);
    let browser = open(&service);
    browser.eval(
        "(window.states = [], new MutationObserver((records) => records.forEach((record) => \
         record.removedNodes.forEach((node) => states.push(node.textContent)))) \
         .observe(document.getElementById('log'), { subtree: true, childList: true }))",
    );
    let (end, text) = answer(&browser, "What time is it, and what is 6 * 7 ?");
    assert!(end.contains("2 model calls"), "{end}");
    assert!(text.contains("The tool says: 42"), "{text}");
    let started = "states.filter((state) => state === 'running…').length";
    assert_eq!(browser.eval(started), 2, "both were shown running");
    let summaries = "[...document.querySelectorAll('.tool')].map((tool) => tool.textContent)";
    let summaries: Vec<String> = serde_json::from_value(browser.eval(summaries)).expect("texts");
    assert!(summaries[0].starts_with("calculatordone in") && summaries[0].ends_with("→ 42"), "{summaries:?}");
    assert!(summaries[1].starts_with("clockdone in") && summaries[1].ends_with("GMT"), "{summaries:?}");
    screenshot(&browser, "tools.png");
}

#[test]
fn bars_move_while_an_answer_streams_and_with_what_it_leaves() {
    let service = Service::start(&[]);
    let browser = open(&service);
    let (connections, memory) = ("pool.max_connections", "memory.max_entries");
    assert_eq!((browser.eval(&used(connections)), browser.eval(&used(memory))), (json!(0), json!(0)));
    assert_eq!(browser.eval(&width(connections)), 0);
    ask(&browser, "Count to 150");
    wait_for(&browser, "a connection is in use", &format!("{} === 1", used(connections)));
    wait_for(&browser, "its bar has moved", &format!("{} > 4", width(connections)));
    assert_eq!(browser.text(END), "", "the answer is still streaming");
    wait_for(&browser, "the conversation is kept", &format!("{} === 1", used(memory)));
}

#[test]
fn markup_in_messages_and_answers_stays_text() {
    let service = Service::start(&[]);
    let browser = open(&service);
    let (_, text) = answer(&browser, "Write some HTML <img src=x onerror=\"document.title='owned'\">");
    assert!(text.contains("<script>document.title='owned'</script>"), "{text}");
    let mine = browser.text("document.querySelector('.mine').textContent");
    assert!(mine.ends_with("<img src=x onerror=\"document.title='owned'\">"), "{mine}");
    assert_eq!(browser.eval("document.querySelectorAll('#log :is(img, script, h1, b)').length"), 0);
    assert_eq!(browser.text("document.title"), "arshai: chat service");
    // Were it ever read as markup, the policy would keep it from running.
    browser.eval("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')");
    browser.eval("document.body.append(Object.assign(document.createElement('script'), {textContent: 'document.title=2'}))");
    wait_for(&browser, "the image has failed", "document.querySelector('body > img').complete");
    assert_eq!(browser.text("document.title"), "arshai: chat service");
}

#[test]
fn an_mcp_server_that_is_killed_turns_red_and_recovers() {
    let mut server = McpServer::start();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("service.toml");
    let servers =
        format!("[mcp]\nenabled = true\n[[mcp.servers]]\nname = \"python\"\nurl = {:?}\n", server.url());
    std::fs::write(&file, servers).expect("the folder is ours");
    let service = Service::start(&[("ARSHAI_CONFIG", file.to_str().expect("a path in UTF-8"))]);
    let browser = open(&service);
    let is = |status| {
        format!("document.querySelector('[data-name=\"mcp:python\"] .state').textContent === '{status}'")
    };
    wait_for(&browser, "the server is healthy", &is("healthy"));

    ask(&browser, "slow 2");
    wait_for(
        &browser,
        "its tool runs",
        "document.querySelector('.tool.running code')?.textContent === 'slow'",
    );
    let end = until("the answer ends", LONG, || Some(browser.text(END)).filter(|end| !end.is_empty()));
    assert!(end.contains("2 model calls"), "{end}");
    assert!(browser.text(ANSWER).contains("done"), "{}", browser.text(ANSWER));

    server.kill();
    wait_for(&browser, "the server is unhealthy", &is("unhealthy"));
    let color = |selector: &str| {
        browser.text(&format!("getComputedStyle(document.querySelector('{selector}')).color"))
    };
    browser.prefer_color_scheme("light");
    assert_eq!(color("[data-name=\"mcp:python\"] .state"), "rgb(194, 38, 38)");
    assert!(
        !browser.text("document.querySelector('[data-name=\"mcp:python\"] .reason').textContent").is_empty()
    );
    screenshot(&browser, "mcp_down.png");
    server.restart();
    wait_for(&browser, "the server is healthy again", &is("healthy"));
    assert!(
        browser.text("document.getElementById('announcer').textContent").contains("mcp:python is healthy")
    );
}

#[test]
fn no_screen_scrolls_sideways_and_controls_stay_in_sight() {
    let service = Service::start(&[]);
    let browser = open(&service);
    answer(&browser, &"What time is it? ".repeat(5));
    answer(&browser, &"x".repeat(300));
    for (name, width, height) in [("narrow", 320, 640), ("tablet", 768, 1024), ("wide", 1440, 900)] {
        browser.resize(width, height);
        let overflow = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
        assert_eq!(browser.eval(overflow), 0, "{name}");
        let cut = "[...document.querySelectorAll('.turn, .component, form')].filter((element) => \
                   element.getBoundingClientRect().right > innerWidth || element.scrollWidth > element.clientWidth).length";
        assert_eq!(browser.eval(cut), 0, "{name}");
        let send = "document.getElementById('send').getBoundingClientRect().bottom <= innerHeight";
        assert_eq!(browser.eval(send), true, "{name}: the message can be sent without scrolling");
    }
}

#[test]
fn every_control_is_reached_by_keyboard_with_a_visible_focus() {
    let service = Service::start(&[]);
    let browser = open(&service);
    let mut reached = Vec::new();
    for _ in 0..9 {
        let focus = "(() => { const on = document.activeElement, style = getComputedStyle(on); return [on.id || on.className \
                     || on.tagName, on === document.body || parseFloat(style.outlineWidth) >= 2 && style.outlineStyle !== 'none']; })()";
        let focus = browser.eval(focus);
        assert_eq!(focus[1], true, "the focus on {} is not visible", focus[0]);
        reached.push(focus[0].as_str().unwrap_or_default().to_owned());
        browser.type_keys(TAB);
    }
    for control in ["message", "send", "log", "ask", "ASIDE", "hidden skip"] {
        assert!(reached.iter().any(|name| name == control), "{control} is not among {reached:?}");
    }
}

#[test]
fn escape_stops_an_answer_and_its_connection() {
    let service = Service::start(&[]);
    let browser = open(&service);
    ask(&browser, "Count to 1000");
    wait_for(&browser, "the answer has begun", &format!("{ANSWER}?.length > 0"));
    browser.type_keys(ESCAPE);
    wait_for(&browser, "the page says so", &format!("{END} === 'You stopped this answer.'"));
    wait_for(&browser, "the connection is free", &format!("{} === 0", used("pool.max_connections")));
}

#[test]
fn an_answer_that_the_grace_period_cuts_says_so() {
    let mut service = Service::start(&[("GRACE", "1")]);
    let browser = open(&service);
    ask(&browser, "Count to 10000");
    wait_for(&browser, "the answer has begun", &format!("{ANSWER}?.length > 0"));
    service.terminate();
    wait_for(&browser, "the page knows", "document.getElementById('link').textContent === 'shutting down'");
    wait_for(&browser, "the answer ends", &format!("{END} !== ''"));
    assert_eq!(browser.text(END), "This answer was cut off: the service is shutting down.");
    assert!(browser.text(ANSWER).starts_with("1 2 3 "), "what had come stays");
    assert!(service.wait().success());
    wait_for(
        &browser,
        "the page is disconnected",
        "document.getElementById('link').className === 'state unhealthy'",
    );
    screenshot(&browser, "cut_off.png");
}

#[test]
fn an_answer_within_the_grace_period_is_complete() {
    let mut service = Service::start(&[("GRACE", "50")]);
    let browser = open(&service);
    ask(&browser, "Count to 100");
    wait_for(&browser, "the answer has begun", &format!("{ANSWER}?.length > 0"));
    service.terminate();
    wait_for(&browser, "the answer ends", &format!("{END} !== ''"));
    assert!(browser.text(END).contains("1 model call"), "{}", browser.text(END));
    assert!(browser.text(ANSWER).ends_with(" 99 100 "));
    assert!(service.wait().success());
}

#[test]
fn a_lost_connection_is_said_and_the_page_recovers_with_the_service() {
    let mut service = Service::start(&[]);
    let browser = open(&service);
    ask(&browser, "Count to 1000");
    wait_for(&browser, "the answer has begun", &format!("{ANSWER}?.length > 0"));
    service.kill();
    wait_for(
        &browser,
        "another attempt is offered",
        "document.querySelector('.end.failed button')?.textContent === 'Try again'",
    );
    assert!(browser.text(END).starts_with("The connection was lost before the answer was complete."));
    wait_for(
        &browser,
        "it is disconnected",
        "document.getElementById('link').className === 'state unhealthy'",
    );
    service.restart(&[("ARSHAI_USE_LEGACY_MEMORY", "true")]);
    wait_for(&browser, "it is live again", "document.getElementById('link').textContent === 'live'");
    let flags = "[...document.querySelectorAll('#flags dd')].map((flag) => flag.textContent)";
    assert_eq!(browser.eval(flags), json!(["on", "off", "off"]));
    assert!(
        browser
            .text("document.querySelector('[data-key=\"memory.max_entries\"] .value').textContent")
            .contains("no limit")
    );
}

#[test]
fn the_page_is_drawn_in_the_preferred_colours() {
    let service = Service::start(&[]);
    let browser = open(&service);
    answer(&browser, "What time is it, and what is 6 * 7 ?");
    ask(&browser, "hello");
    wait_for(&browser, "the answer has begun", &format!("{ANSWER}?.length > 200"));
    wait_for(&browser, "a connection is in use", &format!("{} === 1", used("pool.max_connections")));
    for (scheme, ground) in [("light", "rgb(244, 246, 245)"), ("dark", "rgb(14, 20, 19)")] {
        browser.prefer_color_scheme(scheme);
        assert_eq!(browser.text("getComputedStyle(document.body).backgroundColor"), ground);
        for (size, width, height) in [("wide", 1280, 800), ("narrow", 390, 844)] {
            browser.resize(width, height);
            screenshot(&browser, &format!("{size}_{scheme}.png"));
        }
    }
}
