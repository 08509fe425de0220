//! What memory is in use, by who asked for it. jemalloc samples one of so many bytes; what it writes is read here and scaled to
//! what there is.

use std::time::{Duration, SystemTime};

use super::error::ProfileError;
use super::jemalloc;
use super::modules::Modules;
use super::pprof::{Content, Sample, Stack, encode};

/// Frames between whoever asked for memory and the sample: jemalloc's, and those of Rust's way to it.
const BELOW: &str = "prof_.*|imalloc.*|ialloc.*|iralloc.*|do_r?allocx|malloc_default|_rjem_.*|je_.*|__rust_.*|__rdl_.*|__rg_.*|\
                     .*GlobalAlloc.*|.*::Global>?::.*|alloc::alloc::.*|alloc::raw_vec::.*";

/// What is in use, in pprof's form.
pub(super) fn profile() -> Result<Vec<u8>, ProfileError> {
    let samples = parse(&jemalloc::dump()?)?;
    let content = Content {
        kinds: &[("inuse_objects", "count"), ("inuse_space", "bytes")],
        shown: "inuse_space",
        period: (("space", "bytes"), samples.interval),
        began: SystemTime::now(),
        took: Duration::ZERO,
        comments: Vec::new(),
        below: BELOW,
    };
    let modules = Modules::read()?;
    // Whoever asks next waits for this one.
    encode(&content, &samples.stacks, modules.mapped(), || true)
}

/// What was sampled.
struct Sampled {
    /// Bytes between two samples, on average.
    interval: i64,
    stacks: Vec<Sample>,
}

/// Reads `heap_v2/<interval>`, and then of each stack its return addresses behind an `@` and the sums of all threads behind
/// `t*:`, as `objects: bytes [...]`. What follows the stacks is the memory map.
fn parse(text: &str) -> Result<Sampled, ProfileError> {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let wrong = |line: &str| ProfileError::HeapForm(line.chars().take(80).collect());
    let interval =
        head.strip_prefix("heap_v2/").and_then(|interval| interval.parse().ok()).ok_or_else(|| wrong(head))?;
    let mut sampled = Sampled { interval, stacks: Vec::new() };
    let mut stack = None;
    for line in lines {
        if line.starts_with("MAPPED_LIBRARIES") {
            break;
        }
        if let Some(addresses) = line.strip_prefix("@ ") {
            let address = |word: &str| u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()?.checked_sub(1);
            stack =
                Some(addresses.split_whitespace().map(address).collect::<Option<Vec<_>>>().ok_or_else(|| wrong(line))?);
        } else if let Some(sums) = line.trim_start().strip_prefix("t*: ") {
            // The first sums are of all stacks.
            let Some(stack) = stack.take() else { continue };
            let (objects, bytes) =
                sums.split_once(" [").and_then(|(sums, _)| sums.split_once(": ")).ok_or_else(|| wrong(line))?;
            let (objects, bytes) = (objects.parse().map_err(|_| wrong(line))?, bytes.parse().map_err(|_| wrong(line))?);
            let (objects, bytes) = scaled(objects, bytes, interval);
            sampled.stacks.push(Sample {
                stack: Stack::Addresses(stack),
                values: vec![objects, bytes],
                labels: Vec::new(),
            });
        }
    }
    Ok(sampled)
}

/// What `objects` with so many bytes together stand for, where one is sampled for each `interval` bytes on average: jeprof's
/// and Go's rule, for which jemalloc prepares its sums.
fn scaled(objects: i64, bytes: i64, interval: i64) -> (i64, i64) {
    if objects == 0 || bytes == 0 {
        return (0, 0);
    }
    let mean = bytes as f64 / objects as f64;
    let factor = 1.0 / (1.0 - (-mean / interval as f64).exp());
    ((objects as f64 * factor).round() as i64, (bytes as f64 * factor).round() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "heap_v2/524288\n  t*: 3: 1572864 [0: 0]\n  t0: 3: 1572864 [0: 0]\n@ 0x2001 0x3001\n  t*: 2: 1048576 [0: 0]\n  \
                        t0: 1: 524288 [0: 0]\n  t1: 1: 524288 [0: 0]\n@ 0x4001\n  t*: 1: 16 [0: 0]\n\nMAPPED_LIBRARIES:\n@ nonsense\n";

    #[test]
    fn jemallocs_text_is_read() {
        let sampled = parse(TEXT).expect("a profile");
        assert_eq!((sampled.interval, sampled.stacks.len()), (524_288, 2));
        let Stack::Addresses(addresses) = &sampled.stacks[0].stack else { panic!("addresses") };
        assert_eq!(addresses, &[0x2000, 0x3000]);
        // A block of the interval's size is sampled in 63 of 100 cases; one of 16 bytes in one of 32,768.
        assert_eq!(sampled.stacks[0].values, [3, 1_658_833]);
        assert_eq!(sampled.stacks[1].values[0], 32_769);
    }

    #[test]
    fn what_is_no_profile_is_told() {
        for text in ["", "heap_v3/1\n", "heap_v2/x\n", "heap_v2/1\n@ 12\n", "heap_v2/1\n@ 0x1\n  t*: many\n"] {
            assert!(matches!(parse(text), Err(ProfileError::HeapForm(_))), "{text:?}");
        }
    }
}
