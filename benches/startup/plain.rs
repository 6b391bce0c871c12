//! The same configuration as a service would declare it for figment alone: typed sections with their defaults, the
//! file and the environment merged and extracted. It checks nothing that serde does not.

use std::path::Path;

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};

macro_rules! sections {
    ($($section:ident { $($key:ident: $kind:ty = $default:expr;)+ })+) => {$(
        #[derive(Serialize, Deserialize)]
        pub(crate) struct $section { $(pub(crate) $key: $kind),+ }

        impl Default for $section {
            fn default() -> Self {
                Self { $($key: $default),+ }
            }
        }
    )+};
}

type Text = Option<String>;

sections! {
    Plain {
        cleanup_interval: u64 = 300;
        memory: Memory = Memory::default();
        pool: Pool = Pool::default();
        tasks: Tasks = Tasks::default();
        vectors: Vectors = Vectors::default();
        http: Http = Http::default();
        redis: Redis = Redis::default();
        milvus: Milvus = Milvus::default();
        mcp: Mcp = Mcp::default();
        llm: Llm = Llm::default();
        rollback: Rollback = Rollback::default();
    }
    Memory {
        max_memory_mb: u64 = 500;
        max_entries: u64 = 10_000;
        ttl: u64 = 43_200;
        backend: String = "in_memory".into();
    }
    Pool {
        max_connections: usize = 20;
        max_idle: usize = 4;
        idle_timeout: u64 = 15;
        connect_timeout: u64 = 30;
    }
    Tasks {
        backend: String = "bounded".into();
        max_background_tasks: usize = 1_000;
        background_warning_percent: u8 = 80;
        max_concurrency: usize = 64;
        timeout: u64 = 60;
        max_result_bytes: usize = 1 << 20;
        max_blocking_threads: usize = 64;
    }
    Vectors {
        backend: String = "embedded".into();
        max_memory_mb: u64 = 1_024;
    }
    Http {
        backend: String = "ureq".into();
        connect_timeout: u64 = 10;
        read_timeout: u64 = 60;
        write_timeout: u64 = 10;
        pool_timeout: u64 = 5;
        total_timeout: u64 = 600;
        max_waiting: usize = 1_000;
        max_body_bytes: u64 = 16 << 20;
        max_retries: u32 = 3;
        insecure_hosts: Vec<String> = Vec::new();
        proxy: Text = None;
    }
    Redis { url: String = "redis://localhost:6379/1".into(); }
    Milvus {
        host: String = "localhost".into();
        port: u16 = 19_530;
        db_name: String = "default".into();
        batch_size: usize = 1_000;
        token: Text = None;
    }
    Mcp {
        enabled: bool = false;
        connection_timeout: u64 = 30;
        default_max_retries: u32 = 3;
        servers: Vec<String> = Vec::new();
    }
    Llm {
        openai: OpenAi = OpenAi::default();
        azure: Azure = Azure::default();
        openrouter: OpenRouter = OpenRouter::default();
        google: Google = Google::default();
    }
    OpenAi { api_key: Text = None; base_url: Text = None; }
    Azure { endpoint: Text = None; api_key: Text = None; deployment: Text = None; api_version: Text = None; }
    OpenRouter { api_key: Text = None; base_url: Text = None; site_url: Text = None; app_name: Text = None; }
    Google { api_key: Text = None; }
    Rollback {
        disable_optimizations: bool = false;
        use_legacy_memory: bool = false;
        use_legacy_connections: bool = false;
    }
}

/// Reads the process's environment; this bench starts itself with the variables it needs.
pub(crate) fn load(file: &Path) -> Plain {
    let variables = Env::raw().filter_map(|name| {
        let key = match name.as_str() {
            "ARSHAI_MAX_CONNECTIONS" => "pool.max_connections",
            "ARSHAI_MEMORY_TTL" => "memory.ttl",
            "ARSHAI_MAX_BACKGROUND_TASKS" => "tasks.max_background_tasks",
            "OPENAI_API_KEY" => "llm.openai.api_key",
            "REDIS_URL" => "redis.url",
            _ => return None,
        };
        Some(key.into())
    });
    let layers =
        Figment::from(Serialized::defaults(Plain::default())).merge(Toml::file_exact(file)).merge(variables);
    let plain: Plain = layers.extract().expect("the same values load");
    assert_eq!((plain.pool.max_connections, plain.memory.ttl), (16, 7_200));
    plain
}
