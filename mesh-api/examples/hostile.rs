//! What hostile text costs: time and memory for each of the texts that the tests read, and the slowest of them.
//! Run with `cargo run --release -p mesh-api --example hostile`.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "it is here to measure and to print")]

use std::fs;
use std::time::{Duration, Instant};

#[path = "../tests/it/hostile/texts.rs"]
mod texts;

/// The largest that this process has been since [`forget_peak`], in MiB; none where the system does not tell.
fn peak() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kilobytes| kilobytes / 1024)
}

fn forget_peak() {
    // Without /proc there is nothing to forget.
    let _ = fs::write("/proc/self/clear_refs", "5");
}

/// The time that this process has had a core, where the system tells, so that a busy machine tells the same.
fn busy(since: Instant) -> Duration {
    let told = fs::read_to_string("/proc/self/schedstat").ok();
    let nanos = told.and_then(|text| text.split_whitespace().next()?.parse().ok());
    nanos.map_or_else(|| since.elapsed(), Duration::from_nanos)
}

fn main() {
    let begin = Instant::now();
    let mut slowest = 0;
    for (name, text) in texts::all() {
        forget_peak();
        let before = peak();
        let start = busy(begin);
        let parsed = mesh_api::document::parse(&"hostile.yaml".into(), &text);
        let took = (busy(begin) - start).as_millis();
        let memory = peak().zip(before).map_or_else(|| "?".to_owned(), |(after, before)| (after - before).to_string());
        let (read, refused) = (parsed.objects().count(), parsed.diagnostics().count());
        println!("{name:26} {took:6} ms {memory:>6} MiB {read:8} objects {refused:8} diagnostics");
        slowest = slowest.max(took);
    }
    println!("the slowest took {slowest} ms");
}
