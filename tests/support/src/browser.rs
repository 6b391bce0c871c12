//! A headless Chromium, used as a person uses one.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::port::ReservedPort;
use crate::process::Process;
use crate::wait::until;

/// A browser takes a second to start on an idle machine; the machine is seldom idle.
const START: Duration = Duration::from_secs(60);

/// Chromium with one window, driven through ChromeDriver; both end on drop.
///
/// WebDriver is JSON over HTTP: an HTTP client is all that it takes.
#[derive(Debug)]
pub struct Browser {
    agent: ureq::Agent,
    session: String,
    _driver: Process,
    _port: ReservedPort,
    folder: TempDir,
}

impl Browser {
    /// Starts a browser of 1280 × 860 pixels and returns when it answers.
    ///
    /// # Panics
    ///
    /// If Chromium or ChromeDriver is not installed or does not come up.
    pub fn start() -> Self {
        let (port, folder) = (ReservedPort::reserve(), tempfile::tempdir().expect("a temporary folder"));
        let log = File::create(folder.path().join("log")).expect("the folder is ours");
        let mut command = Command::new("chromedriver");
        command.arg(format!("--port={}", port.number())).stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a file can be shared")).stderr(log);
        let _driver = Process::spawn(&mut command)
            .unwrap_or_else(|error| panic!("chromedriver: {error}; `bash tests/all.sh` installs it"));
        until("ChromeDriver listens", START, || TcpStream::connect(port.address()).ok());
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(START));
        let session = format!("http://{}/session", port.address());
        let mut browser = Self { agent: config.build().into(), session, _driver, _port: port, folder };
        browser.open_session();
        browser
    }

    fn open_session(&mut self) {
        let profile = self.folder.path().join("profile");
        let options = json!({"args": [
            "--headless",
            "--window-size=1280,860",
            "--hide-scrollbars",
            // Root and containers have no sandbox. The pages are our own.
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-gpu",
            // Over a pipe, the browser ends with the driver, however that ends.
            "--remote-debugging-pipe",
            format!("--user-data-dir={}", profile.display()),
        ]});
        let capabilities = json!({"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}});
        let session = self.command("", &capabilities);
        let id = session["sessionId"].as_str().unwrap_or_else(|| panic!("no session: {session}"));
        self.session = format!("{}/{id}", self.session);
    }

    /// Loads a page.
    pub fn open(&self, url: &str) {
        self.command("/url", &json!({"url": url}));
    }

    /// The value of an expression in the page.
    pub fn eval(&self, expression: &str) -> Value {
        self.command("/execute/sync", &json!({"script": format!("return {expression};"), "args": []}))
    }

    /// The text that an expression gives; `""` for none.
    pub fn text(&self, expression: &str) -> String {
        self.eval(expression).as_str().unwrap_or_default().to_owned()
    }

    /// Types on the keyboard, into whatever has the focus. `\u{e007}` is Enter, `\u{e004}` Tab, `\u{e00c}` Escape.
    pub fn type_keys(&self, keys: &str) {
        let actions = keys.chars().flat_map(|key| {
            [
                json!({"type": "keyDown", "value": key.to_string()}),
                json!({"type": "keyUp", "value": key.to_string()}),
            ]
        });
        let source = json!({"type": "key", "id": "keyboard", "actions": actions.collect::<Vec<_>>()});
        self.command("/actions", &json!({"actions": [source]}));
    }

    /// Makes the page as large as this many CSS pixels.
    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        self.devtools("Emulation.setDeviceMetricsOverride", &size);
    }

    /// What the system prefers: `light` or `dark`.
    pub fn prefer_color_scheme(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.devtools("Emulation.setEmulatedMedia", &json!({"features": features}));
    }

    /// Writes what is visible to a PNG file.
    pub fn screenshot(&self, path: &Path) {
        let image = self.devtools("Page.captureScreenshot", &json!({"format": "png"}));
        let image =
            BASE64_STANDARD.decode(image["data"].as_str().expect("an image")).expect("it is in base64");
        fs::write(path, image).expect("the folder is the caller's");
    }

    fn devtools(&self, command: &str, parameters: &Value) -> Value {
        self.command("/goog/cdp/execute", &json!({"cmd": command, "params": parameters}))
    }

    fn command(&self, path: &str, body: &Value) -> Value {
        let response = self.agent.post(format!("{}{path}", self.session)).send(body.to_string());
        let response = response.and_then(|mut response| response.body_mut().read_to_string());
        let response = response.unwrap_or_else(|error| panic!("{path}: {error}\n{}", self.log()));
        let mut response: Value = serde_json::from_str(&response).expect("WebDriver answers in JSON");
        let value = response["value"].take();
        assert!(value["error"].is_null(), "{path} {body}: {value}\n{}", self.log());
        value
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver's end ends the browser too; asking first lets it remove what it made.
        let _ = self.agent.delete(&self.session).call();
    }
}
