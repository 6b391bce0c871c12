use arshai_test_support::{PythonPeer, RedisServer, Reply};
use serde_json::{Value, json};

#[test]
fn python_keeps_memory_and_keys_on_the_server_it_is_given() {
    let server = RedisServer::start();
    let mut python = PythonPeer::start(&server.url());
    memory(&mut python, &server);
    keys(&mut python, &server);
    errors(&mut python, &server);
}

fn memory(python: &mut PythonPeer, server: &RedisServer) {
    let key = "memory:WORKING_MEMORY:c1";
    let request = |op: &str, more: Value| {
        let mut request = json!({"op": op, "conversation_id": "c1", "memory_type": "WORKING_MEMORY"});
        let fields = request.as_object_mut().expect("an object");
        fields.extend(more.as_object().expect("an object").clone());
        request
    };
    let store = request("store", json!({"data": ["first", "last ü"], "metadata": {"user": 7}, "ttl": 100}));
    assert_eq!(python.call(&store), json!({"ok": key}));
    assert_eq!(server.command(&["TTL", key]).integer(), 100);
    let stored: Value = serde_json::from_str(server.command(&["GET", key]).text()).expect("JSON");
    assert_eq!(stored["metadata"], json!({"user": 7}));
    assert_eq!(python.call(&request("retrieve", json!({}))), json!({"ok": ["last ü"]}));

    assert_eq!(python.call(&request("update", json!({"data": ["newer"]}))), json!({"ok": null}));
    assert_eq!(server.command(&["TTL", key]).integer(), 43_200);
    assert_eq!(python.call(&request("retrieve", json!({}))), json!({"ok": ["newer"]}));
    assert_eq!(python.call(&request("delete", json!({}))), json!({"ok": null}));
    assert_eq!(server.command(&["EXISTS", key]).integer(), 0);
}

fn keys(python: &mut PythonPeer, server: &RedisServer) {
    let set = json!({"op": "set_key", "key": "k", "value": "{\"a\": 1}", "expire": 100});
    assert_eq!(python.call(&set), json!({"ok": null}));
    assert_eq!(server.command(&["TTL", "k"]).integer(), 100);
    assert_eq!(python.call(&json!({"op": "get_key", "key": "k"})), json!({"ok": {"a": 1}}));

    let bytes = json!({"base64": "/wA="});
    assert_eq!(python.call(&json!({"op": "set_key", "key": "b", "value": bytes})), json!({"ok": null}));
    assert_eq!(server.command(&["GET", "b"]), Reply::Bytes(vec![0xff, 0]));
    assert_eq!(python.call(&json!({"op": "get_key", "key": "b"})), json!({"ok": bytes}));
    assert_eq!(python.call(&json!({"op": "get_key", "key": "none"})), json!({"ok": null}));
}

fn errors(python: &mut PythonPeer, server: &RedisServer) {
    let answer = python.call(&json!({"op": "store", "conversation_id": "c1"}));
    assert_eq!(answer, json!({"error": "ValueError", "message": "No data provided to store"}));
    assert!(server.command(&["SET", "memory:SHORT_TERM_MEMORY:c2", "not JSON"]).is_ok());
    let answer = python.call(&json!({"op": "retrieve", "conversation_id": "c2"}));
    assert_eq!(answer["error"], "JSONDecodeError");
    assert_eq!(python.call(&json!({"op": "get_key", "key": "none"})), json!({"ok": null}), "it goes on");
}
