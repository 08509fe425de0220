//! Samples as a table.

use super::samples::{Sample, Samples};
use crate::spread::Spread;
use crate::table::{Table, figure};

const HEADER: [&str; 11] = [
    "server",
    "meanwhile",
    "times",
    "seconds",
    "puts",
    "p50 ms",
    "p99 ms",
    "p99.9 ms",
    "max ms",
    "p99 / calm",
    "min–max",
];

/// The sample of one state.
type Pick = fn(&Samples) -> Option<&Sample>;

const STATES: [(&str, Pick); 4] = [
    ("calm", |samples| Some(&samples.calm)),
    ("compaction", |samples| Some(&samples.compaction)),
    ("checkpoint", |samples| samples.checkpoint.as_ref()),
    ("all", |samples| Some(&samples.all)),
];

/// The rounds of one server.
pub struct Rounds {
    /// How the server is called.
    pub name: String,
    /// Each round by itself.
    pub rounds: Vec<Samples>,
}

/// Latencies of all rounds together by what went on meanwhile; the last column is the ratio in single rounds.
pub fn pauses_table(servers: &[Rounds]) -> String {
    let mut table = Table::new(&HEADER);
    let mut notes = String::new();
    for server in servers {
        let mut all = Samples::default();
        server.rounds.iter().for_each(|round| all.merge(round.clone()));
        for (number, (state, pick)) in STATES.into_iter().enumerate() {
            let Some(sample) = pick(&all) else { continue };
            let name = if number == 0 { server.name.as_str() } else { "" };
            let ratios = server.rounds.iter().filter_map(|round| p99_to_calm(pick(round)?, round));
            table.push(row(name, state, sample, p99_to_calm(sample, &all), Spread::of(ratios)));
        }
        if let Some(first) = &all.first_error {
            notes += &format!("{}: {} failed puts, first: {first}\n", server.name, all.errors);
        }
    }
    format!("{table}{notes}")
}

fn row(name: &str, state: &str, sample: &Sample, ratio: Option<f64>, ratios: Option<Spread>) -> Vec<String> {
    let quantile = |quantile| milliseconds(sample, quantile).map_or("-".to_owned(), figure);
    // How often calm came is no figure.
    let times = if sample.times == 0 { "-".to_owned() } else { sample.times.to_string() };
    vec![
        name.to_owned(),
        state.to_owned(),
        times,
        figure(sample.length.as_secs_f64()),
        figure(sample.latencies.total() as f64),
        quantile(0.5),
        quantile(0.99),
        quantile(0.999),
        quantile(1.0),
        ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}")),
        ratios.map_or("-".to_owned(), Spread::range),
    ]
}

fn p99_to_calm(sample: &Sample, all: &Samples) -> Option<f64> {
    Some(milliseconds(sample, 0.99)? / milliseconds(&all.calm, 0.99)?)
}

fn milliseconds(sample: &Sample, quantile: f64) -> Option<f64> {
    Some(sample.latencies.quantile(quantile)?.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sample(times: usize, milliseconds: &[u64]) -> Sample {
        let mut sample = Sample { times, length: Duration::from_secs(2), ..Default::default() };
        milliseconds.iter().for_each(|one| sample.latencies.record(Duration::from_millis(*one)));
        sample
    }

    #[test]
    fn each_state_stands_beside_calm() {
        let round = Samples {
            calm: sample(0, &[2]),
            compaction: sample(1, &[4]),
            checkpoint: Some(sample(1, &[])),
            all: sample(0, &[2, 2]),
            errors: 1,
            first_error: Some("Unavailable: gone".to_owned()),
        };
        let etcd = Samples { checkpoint: None, errors: 0, first_error: None, ..round.clone() };
        let servers = [
            Rounds { name: "etcd".to_owned(), rounds: vec![etcd] },
            Rounds { name: "basalt".to_owned(), rounds: vec![round.clone(), round] },
        ];
        let expected = "\
server  meanwhile   times  seconds  puts  p50 ms  p99 ms  p99.9 ms  max ms  p99 / calm    min–max
etcd    calm            -     2.00  1.00    2.03    2.03      2.03    2.03        1.00  1.00–1.00
        compaction      1     2.00  1.00    4.06    4.06      4.06    4.06        2.00  2.00–2.00
        all             -     2.00  2.00    2.03    2.03      2.03    2.03        1.00  1.00–1.00
basalt  calm            -     4.00  2.00    2.03    2.03      2.03    2.03        1.00  1.00–1.00
        compaction      2     4.00  2.00    4.06    4.06      4.06    4.06        2.00  2.00–2.00
        checkpoint      2     4.00     0       -       -         -       -           -          -
        all             -     4.00  4.00    2.03    2.03      2.03    2.03        1.00  1.00–1.00
basalt: 2 failed puts, first: Unavailable: gone
";
        assert_eq!(pauses_table(&servers), expected);
    }
}
