//! What an application exports: metrics for Prometheus, spans for OpenTelemetry.

use std::process::{Command, Stdio};

use arshai::{Arshai, Config};
use arshai_test_support::example;

#[test]
fn the_example_exports_every_limit_and_the_spans_of_a_turn() {
    let output = Command::new(example("observability"))
        .arg("--once")
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));

    let runtime = Arshai::builder(Config::default()).build().expect("defaults are valid");
    for component in runtime.stats().components {
        for limit in &component.limits {
            let labels = format!("component={:?},key={:?},unit={:?}", component.name, limit.key, limit.unit);
            assert!(text.contains(&format!("arshai_used{{{labels}}} ")), "{labels}: {text}");
            assert_eq!(
                text.contains(&format!("arshai_limit{{{labels}}} ")),
                limit.limit.is_some(),
                "{labels}"
            );
        }
    }
    assert!(text.contains(r#"key="memory.max_entries",unit="entries"} 1"#), "the turn is remembered: {text}");
    assert!(text.contains(r#"name="succeeded"} 1"#), "the tool ran: {text}");
    for span in ["invoke_agent", "execute_tool"] {
        assert!(text.contains(span), "{span}: {text}");
    }
}
