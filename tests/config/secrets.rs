//! No secret is shown anywhere.

use arshai::config::ConfigLoader;
use arshai::{Arshai, Config, Error};
use figment::Figment;
use figment::providers::{Format, Serialized, Toml};

use super::{explained, file, load_file, vars};

const SENTINEL: &str = "sentinel-7f3a";

/// Everything a configuration can print.
fn outputs(config: &Config) -> Vec<String> {
    let explained = config.explain();
    let mut outputs = vec![
        format!("{config:?} {:?}", config.effective()),
        explained.to_string(),
        format!("{explained:?}"),
        serde_json::to_string(&explained).expect("JSON"),
        config.warnings().join(" "),
    ];
    match Arshai::builder(config.clone()).build() {
        Ok(runtime) => outputs.push(format!("{runtime:?} {:?} {}", runtime.config(), runtime.stats())),
        Err(error) => outputs.push(shown(&error)),
    }
    outputs
}

fn shown(error: &Error) -> String {
    format!("{error} {error:?} {error:#?}")
}

/// Loads from one source and searches all that can be printed for the sentinel.
fn assert_hidden(what: &str, loader: ConfigLoader) {
    assert!(!format!("{loader:?}").contains(SENTINEL), "{what}: {loader:?}");
    match loader.load() {
        Ok(config) => {
            for output in outputs(&config) {
                assert!(!output.contains(SENTINEL), "{what}: {output}");
            }
        }
        Err(error) => assert!(!shown(&error).contains(SENTINEL), "{what}: {error}"),
    }
}

/// Keys that are secret, or hold URLs.
fn secret_keys() -> Vec<String> {
    let defaults = Config::default().explain();
    let keys = defaults.values.into_iter().map(|value| value.key.into_owned());
    let is_secret = |key: &String| {
        ["api_key", "token", "url", "endpoint", "proxy"].iter().any(|ending| key.ends_with(ending))
    };
    keys.filter(is_secret).chain(["backends.theirs.password".to_owned()]).collect()
}

/// A secret by itself, and in every part of a URL, percent-encoded or not.
fn values() -> Vec<String> {
    let mut values = vec![SENTINEL.to_owned(), format!("{SENTINEL}://{SENTINEL}")];
    for scheme in ["redis", "https"] {
        for url in [
            "user:SENTINEL@host/1",
            ":SENTINEL@host:6379",
            "SENTINEL@host",
            "host/v1?key=SENTINEL",
            "host/v1#SENTINEL",
            "user:12#SENTINEL@host",
            "user:12/SENTINEL@host",
            "user:12?SENTINEL@host",
            "user:a#b/c?d@SENTINEL@host",
            "user:SENTINEL",
            ":SENTINEL",
        ] {
            values.push(format!("{scheme}://{}", url.replace("SENTINEL", SENTINEL)));
        }
    }
    values
}

#[test]
fn a_secret_from_any_source_is_never_shown() {
    for key in secret_keys() {
        let variable = format!("ARSHAI_{}", key.to_uppercase().replace('.', "__"));
        for value in values() {
            let what = format!("{key} = {value}");
            assert_hidden(&what, ConfigLoader::new().vars(vars([(&variable, &value)])));
            assert_hidden(&what, ConfigLoader::new().set(key.as_str(), value.as_str()));
            let figment = Figment::from(Serialized::default(&key, &value));
            assert_hidden(&what, ConfigLoader::new().figment(&figment));
            let quoted = serde_json::to_string(&value).expect("a string");
            let toml = file("a.toml", &format!("{key} = {quoted}\n"));
            assert_hidden(&what, ConfigLoader::new().file(&toml.path));
        }
    }
}

#[test]
fn a_secret_that_code_wrote_into_a_field_is_never_shown() {
    for value in values() {
        let mut config = Config::default();
        config.redis.url = value.clone().into();
        config.http.proxy = Some(value.clone().into());
        config.milvus.token = Some(value.clone().into());
        let llm = &mut config.llm;
        (llm.openai.api_key, llm.openai.base_url) = (Some(value.clone().into()), Some(value.clone()));
        (llm.azure.api_key, llm.azure.endpoint) = (Some(value.clone().into()), Some(value.clone()));
        (llm.openrouter.api_key, llm.openrouter.base_url) = (Some(value.clone().into()), Some(value.clone()));
        (llm.google.api_key, llm.google.base_url) = (Some(value.clone().into()), Some(value.clone()));
        config.backends.set("theirs", "password", value.as_str());
        for output in outputs(&config) {
            assert!(!output.contains(SENTINEL), "{value}: {output}");
        }
    }
}

#[test]
fn credentials_in_place_of_a_host_are_rejected_and_never_shown() {
    let value = format!("user:{SENTINEL}@host");
    for key in ["milvus.host", "http.insecure_hosts"] {
        let variable = format!("ARSHAI_{}", key.to_uppercase().replace('.', "__"));
        let loader = || ConfigLoader::new().vars(vars([(&variable, &value)]));
        assert_hidden(key, loader());
        let error = loader().load().expect_err("no host").to_string();
        assert!(
            error.contains(&variable) && error.contains("without scheme, credentials and port"),
            "{error}"
        );
        for toml in [format!("{key} = \"{value}\"\n"), format!("{key} = [\"{value}\"]\n")] {
            assert_hidden(key, ConfigLoader::new().file(&file("a.toml", &toml).path));
        }
    }
    let mut config = Config::default();
    config.milvus.host = value.clone();
    config.http.insecure_hosts = vec!["models.internal".into(), value];
    for output in outputs(&config) {
        assert!(!output.contains(SENTINEL), "{output}");
    }
    assert!(Arshai::builder(config).build().is_err());
}

#[test]
fn a_secret_of_an_mcp_server_is_never_shown() {
    for server in [
        "{ name = \"a\", url = \"https://host/mcp?token=SENTINEL\" }",
        "{ name = \"a\", url = \"SENTINEL\" }",
        "{ name = \"a\", command = \"run\", args = [\"SENTINEL\"], env = { TOKEN = \"SENTINEL\" } }",
        "{ name = \"a\", command = \"run\", env = \"SENTINEL\" }",
    ] {
        let text = format!("[mcp]\nservers = [{}]\n", server.replace("SENTINEL", SENTINEL));
        assert_hidden(server, ConfigLoader::new().file(&file("a.toml", &text).path));
    }
    assert_hidden("MCP_SERVER_URL", ConfigLoader::new().vars(vars([("MCP_SERVER_URL", SENTINEL)])));
}

#[test]
fn what_may_be_shown_of_a_url_is() {
    let config = Config::from_vars(vars([("REDIS_URL", "redis://user:secret@localhost:6379/1")]));
    assert_eq!(explained(&config.expect("valid"), "redis.url").0, "redis://***@localhost:6379/1");
}

#[test]
fn an_invalid_file_is_not_repeated_since_it_may_hold_secrets() {
    for (name, text) in [
        ("a.toml", "[llm.openai]\napi_key = sk-sentinel\n"),
        ("b.toml", "# sentinel\nx = \"sentinel | sentinel\n"),
        ("a.yaml", "sk-sentinel"),
        ("b.yaml", "llm: {openai: {api_key: 'sk-sentinel}}"),
        ("a.json", "\"sk-sentinel\""),
        ("b.json", "{\"a\": sk-sentinel}"),
    ] {
        let error = load_file(name, text).expect_err(name);
        assert!(!shown(&error).contains("sentinel"), "{error}");
        let in_figment = Figment::from(Toml::string(text));
        let error_of_figment = Config::from_figment(&in_figment).expect_err(name);
        assert!(!shown(&error_of_figment).contains("sentinel"), "{error_of_figment}");
        assert!(error.to_string().contains("invalid "), "{error}");
    }
    assert!(
        load_file("a.toml", "[memory]\nttl = 5 5").expect_err("malformed").to_string().contains("line 2")
    );
}
