//! How long a call takes on the device.

use std::time::{Duration, Instant};

use wgpu_attention::{Context, Workspace, wgpu};

use super::Failure;
use super::call::{Call, Step};

/// Work above which a plan of several dispatches is submitted piece by piece: a tenth of a second at 1 TFLOP/s.
/// Watchdogs count a submit as a whole.
const LONG_FLOPS: u64 = 100_000_000_000;
/// Calls shorter than this are repeated within a sample, for clocks are coarse and passes have a start and an end.
const SAMPLE: Duration = Duration::from_millis(1);
const MOST_CALLS: u32 = 64;
const WARM_UP: Duration = Duration::from_millis(50);

/// Runs calls until they are warm, and times them.
pub struct Timer(wgpu_attention::Timer);

impl Timer {
    pub fn new(context: &Context) -> Self {
        Self(wgpu_attention::Timer::new(context))
    }

    /// `timestamp` or `wall`.
    pub fn name(&self) -> &'static str {
        self.0.name()
    }

    /// Runs a call until it is warm and settles how it is timed from then on.
    pub fn warm_up<'t, 'a>(&'t self, call: impl Into<Call<'a>>) -> Result<Timed<'t, 'a>, Failure> {
        let call = call.into();
        let long = call.flops() > LONG_FLOPS && call.dispatches() > 1;
        let workspaces = long.then(|| call.workspaces()).transpose()?;
        let mut timed = Timed { timer: self, call, workspaces, calls: 1, took: Duration::ZERO };
        let start = Instant::now();
        timed.took = timed.sample()?;
        while start.elapsed() < WARM_UP {
            timed.took = timed.took.min(timed.sample()?);
        }
        let calls = SAMPLE.as_secs_f64() / timed.took.as_secs_f64().max(1e-9);
        timed.calls = (calls.ceil() as u32).clamp(1, MOST_CALLS);
        Ok(timed)
    }

    /// Time of one submit with one pass.
    pub fn pass(&self, record: impl FnOnce(&mut wgpu::ComputePass<'_>)) -> Result<Duration, Failure> {
        Ok(self.0.pass(record)?)
    }
}

/// A warm call.
pub struct Timed<'t, 'a> {
    timer: &'t Timer,
    pub call: Call<'a>,
    /// One a step, given if the plans are submitted piece by piece.
    workspaces: Option<Vec<Option<Workspace>>>,
    calls: u32,
    /// The shortest time of the warm-up.
    pub took: Duration,
}

impl Timed<'_, '_> {
    /// Device time of one call; of a short call, the mean of several in one pass.
    pub fn sample(&self) -> Result<Duration, Failure> {
        let Some(workspaces) = &self.workspaces else {
            let calls = self.timer.pass(|pass| (0..self.calls).for_each(|_| self.call.record_in(pass)))?;
            return Ok(calls / self.calls);
        };
        let mut took = Duration::ZERO;
        for (step, workspace) in self.call.steps.iter().zip(workspaces) {
            let (Step::Op(prepared), Some(workspace)) = (step, workspace) else {
                took += self.timer.pass(|pass| step.record_in(pass))?;
                continue;
            };
            for piece in 0..prepared.plan().dispatches() {
                let mut recorded = Ok(());
                took += self.timer.pass(|pass| recorded = prepared.record_piece(pass, piece, workspace))?;
                recorded?;
            }
        }
        Ok(took)
    }
}

/// The middle of some samples, or between the two in the middle; sorts them.
pub fn median(samples: &mut [Duration]) -> Duration {
    samples.sort_unstable();
    let middle = samples.len() / 2;
    match samples.len() % 2 {
        1 => samples[middle],
        _ => (samples[middle - 1] + samples[middle]) / 2,
    }
}
