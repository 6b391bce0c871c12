//! What every contender inserts and searches for: made on the fly, so that nobody holds it.

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};

pub(crate) const DIM: usize = 384;

/// A row as an application has it: text, metadata and vector.
pub(crate) fn row(number: usize) -> (String, Value, Vec<f32>) {
    let text =
        format!("Passage {number} of a document, about as long as a sentence that answers a question.");
    let metadata = json!({"source": format!("file-{}.md", number % 1_000), "page": number % 50});
    (text, metadata, vector(number))
}

/// Elements from -0.5 to 0.5.
pub(crate) fn vector(seed: usize) -> Vec<f32> {
    let mut state = (seed as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let element = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u32 << 24) as f32 - 0.5
    };
    (0..DIM).map(element).collect()
}

/// The processor time of this process so far.
pub(crate) fn cpu_micros() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// The most memory that this process has held so far.
pub(crate) fn peak_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a Linux machine");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}
