//! Rounds as a table: medians, spreads, and the ratio of the two sides.

use crate::comparison::{SideResult, WorkloadResult};
use crate::round::{Round, ServerUse};
use crate::spread::Spread;
use crate::table::{Table, figure};

const HEADER: [&str; 10] =
    ["load", "server", "CPU µs/op", "min–max", "ops/s", "min–max", "p50 ms", "p99 ms", "RSS / peak MiB", "checkpoints"];
/// What a round for claims holds at least.
const CHECKPOINTS_LEAST: u64 = 3;

/// The table of a comparison, its figures the medians of the rounds; a ratio is right by left.
pub fn comparison_table(results: &[WorkloadResult], left_name: &str, right_name: &str) -> String {
    let mut table = Table::new(&HEADER);
    let mut below = String::new();
    for result in results {
        let sides = [(left_name, &result.left), (right_name, &result.right)];
        let mut medians = Vec::new();
        for (number, (name, side)) in sides.into_iter().enumerate() {
            let title = if number == 0 { result.workload.as_str() } else { "" };
            match side {
                SideResult::Rounds(rounds) => {
                    table.push(row(title, name, rounds));
                    below += &notes(&result.workload, name, rounds);
                    medians.push(Medians::of(rounds));
                }
                SideResult::Failed(cause) => {
                    table.push(vec![title.to_owned(), name.to_owned(), "failed".to_owned()]);
                    below += &format!("{} on {name} failed: {cause}\n", result.workload);
                }
            }
        }
        if let [left, right] = medians.as_slice() {
            table.push(ratio_row(left, right));
        }
    }
    format!("{table}{below}")
}

/// The table of one server.
pub fn rounds_table(workload: &str, name: &str, rounds: &[Round]) -> String {
    let mut table = Table::new(&HEADER);
    table.push(row(workload, name, rounds));
    format!("{table}{}", notes(workload, name, rounds))
}

/// Whether every load was run to the end without a failed operation.
pub fn is_clean(results: &[WorkloadResult]) -> bool {
    results.iter().flat_map(|result| [&result.left, &result.right]).all(|side| match side {
        SideResult::Rounds(rounds) => rounds.iter().all(|round| round.errors == 0),
        SideResult::Failed(_) => false,
    })
}

/// The medians of a side, by column; `None` where nothing was measured.
struct Medians {
    cpu_us: Option<Spread>,
    throughput: Option<Spread>,
    p50_ms: Option<Spread>,
    p99_ms: Option<Spread>,
    resident_mib: Option<Spread>,
    peak_mib: Option<Spread>,
}

impl Medians {
    fn of(rounds: &[Round]) -> Self {
        let spread = |pick: fn(&Round) -> f64| Spread::of(rounds.iter().map(pick));
        let server =
            |pick: fn(&ServerUse) -> f64| Spread::of(rounds.iter().filter_map(|round| round.server.as_ref()).map(pick));
        Self {
            cpu_us: server(|server| server.cpu_us),
            throughput: spread(|round| round.throughput),
            p50_ms: spread(|round| round.p50_ms),
            p99_ms: spread(|round| round.p99_ms),
            resident_mib: server(|server| server.resident_mib),
            peak_mib: server(|server| server.peak_mib),
        }
    }
}

fn row(title: &str, name: &str, rounds: &[Round]) -> Vec<String> {
    let medians = Medians::of(rounds);
    let median = |spread: Option<Spread>| spread.map_or("-".to_owned(), |spread| figure(spread.median));
    let range = |spread: Option<Spread>| spread.map_or("-".to_owned(), Spread::range);
    vec![
        title.to_owned(),
        name.to_owned(),
        median(medians.cpu_us),
        range(medians.cpu_us),
        median(medians.throughput),
        range(medians.throughput),
        median(medians.p50_ms),
        median(medians.p99_ms),
        format!("{} / {}", median(medians.resident_mib), median(medians.peak_mib)),
        fewest_checkpoints(rounds).map_or("-".to_owned(), |fewest| fewest.to_string()),
    ]
}

/// In the round that held the fewest.
fn fewest_checkpoints(rounds: &[Round]) -> Option<u64> {
    rounds.iter().filter_map(|round| round.server.as_ref()?.checkpoints).min()
}

fn ratio_row(left: &Medians, right: &Medians) -> Vec<String> {
    let ratio = |pick: fn(&Medians) -> Option<Spread>| match (pick(left), pick(right)) {
        (Some(left), Some(right)) if left.median > 0.0 => format!("{:.2}", right.median / left.median),
        _ => "-".to_owned(),
    };
    vec![
        String::new(),
        "ratio".to_owned(),
        ratio(|medians| medians.cpu_us),
        String::new(),
        ratio(|medians| medians.throughput),
        String::new(),
        ratio(|medians| medians.p50_ms),
        ratio(|medians| medians.p99_ms),
        format!("{} / {}", ratio(|medians| medians.resident_mib), ratio(|medians| medians.peak_mib)),
    ]
}

/// What is wrong with the rounds, a line each.
fn notes(workload: &str, name: &str, rounds: &[Round]) -> String {
    let errors: u64 = rounds.iter().map(|round| round.errors).sum();
    let first = rounds.iter().find_map(|round| round.first_error.as_deref()).unwrap_or("unknown");
    let mut notes = String::new();
    if errors > 0 {
        notes += &format!("{workload} on {name}: {errors} failed operations, first: {first}\n");
    }
    // A load that writes nothing has none, and needs none.
    if let Some(few @ 1..CHECKPOINTS_LEAST) = fewest_checkpoints(rounds) {
        notes += &format!("{workload} on {name}: a round of {few} checkpoints; a claim needs {CHECKPOINTS_LEAST}\n");
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round(cpu_us: f64, throughput: f64) -> Round {
        let server = Some(ServerUse { cpu_us, resident_mib: 64.0, peak_mib: 128.0, checkpoints: None });
        Round {
            operations: 1,
            errors: 0,
            first_error: None,
            throughput,
            p50_ms: 1.0,
            p99_ms: 4.0,
            client_cpu_us: 1.0,
            server,
        }
    }

    #[test]
    fn a_table_shows_both_sides_and_their_ratio() {
        let left = SideResult::Rounds(vec![round(60.0, 20_000.0), round(58.0, 21_000.0), round(70.0, 19_000.0)]);
        let mut checkpointed = round(15.0, 40_000.0);
        checkpointed.server.as_mut().expect("measured").checkpoints = Some(2);
        let right = SideResult::Rounds(vec![checkpointed]);
        let results = [WorkloadResult { workload: "put".into(), left, right }];
        let expected = "\
load  server  CPU µs/op    min–max   ops/s        min–max  p50 ms  p99 ms  RSS / peak MiB  checkpoints
put   etcd         60.0  58.0–70.0  20,000  19,000–21,000    1.00    4.00      64.0 / 128            -
      basalt       15.0  15.0–15.0  40,000  40,000–40,000    1.00    4.00      64.0 / 128            2
      ratio        0.25               2.00                   1.00    1.00     1.00 / 1.00
put on basalt: a round of 2 checkpoints; a claim needs 3
";
        assert_eq!(comparison_table(&results, "etcd", "basalt"), expected);
        assert!(is_clean(&results));
    }

    #[test]
    fn what_failed_is_told_below() {
        let mut wrong = round(1.0, 1.0);
        (wrong.errors, wrong.first_error) = (2, Some("Unavailable: gone".to_owned()));
        let (left, right) = (SideResult::Rounds(vec![wrong]), SideResult::Failed("no such call".to_owned()));
        let results = [WorkloadResult { workload: "list-stream".into(), left, right }];
        let table = comparison_table(&results, "etcd", "basalt");
        assert!(table.contains("list-stream on etcd: 2 failed operations, first: Unavailable: gone\n"), "{table}");
        assert!(table.ends_with("list-stream on basalt failed: no such call\n"), "{table}");
        assert!(!table.contains("  ratio ") && !is_clean(&results));
    }
}
