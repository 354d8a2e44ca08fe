//! Cases that are timed in turns, so that a slow spell of the machine meets all alike.

use std::time::Duration;

use crate::harness::Failure;
use crate::harness::timer::Timed;
use crate::harness::verify::Checked;
use crate::schedule;

/// A case, verified and warm.
pub struct Ready<'t, 'a> {
    pub checked: Checked,
    pub timed: Timed<'t, 'a>,
    wanted: usize,
    pub samples: Vec<Duration>,
}

impl<'t, 'a> Ready<'t, 'a> {
    /// To be timed as often as asked, or as often as fits.
    pub fn new(checked: Checked, timed: Timed<'t, 'a>, asked: Option<u32>) -> Self {
        let wanted = schedule::samples(timed.took, asked);
        Self { checked, timed, wanted, samples: Vec::with_capacity(wanted) }
    }
}

/// Takes all samples; `say` hears of each round, and of how many there are.
pub fn take(cases: &mut [Result<Ready, Failure>], say: impl Fn(usize, usize)) {
    let rounds = cases.iter().flatten().map(|ready| ready.wanted).max().unwrap_or(0);
    for round in 0..rounds {
        say(round + 1, rounds);
        for slot in &mut *cases {
            let Ok(Ready { timed, wanted, samples, .. }) = slot else { continue };
            if round < *wanted {
                match timed.sample() {
                    Ok(sample) => samples.push(sample),
                    Err(failure) => *slot = Err(failure),
                }
            }
        }
    }
}
