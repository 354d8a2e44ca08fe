//! What is learned: a text, character by character, and a control that asks for one thing alone.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context as _, Result};
use rand::Rng;
use rand::rngs::StdRng;

/// Sequences of equal length, side by side, and what is to follow each token; [`NONE`] where that is not asked.
pub struct Batch {
    pub tokens: Vec<u32>,
    pub labels: Vec<u32>,
}

pub const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Positions {
    /// The rotary angles of training, wherever a token stands.
    Plain,
    /// Past the length of training, angles that turn slower, those of low frequency most: kexue.fm/archives/9706.
    NtkMixed,
    /// None: what stands where says nothing.
    None,
}

pub trait Task {
    fn vocabulary(&self) -> u32;
    /// To learn from.
    fn batch(&self, count: u32, len: u32, rng: &mut StdRng) -> Batch;
    /// Some of the windows that are judged, never learned from.
    fn held_out(&self, windows: Range<u32>, judged: &Judged) -> Batch;
}

/// On what a model is judged: sequences, behind whose last tokens it is asked.
#[derive(Clone, Copy, Debug)]
pub struct Judged {
    pub windows: u32,
    pub targets: u32,
    pub len: u32,
    /// Of all lengths at which it is judged. Of a text the targets are the same at every one: only what comes before them differs.
    pub longest: u32,
}

/// The words of data/verses.txt.
pub struct Text {
    /// By their place in the alphabet that the text has.
    characters: Vec<u32>,
    alphabet: Vec<char>,
    /// Where what is never learned from begins.
    held_out: usize,
}

impl Text {
    pub fn load() -> Result<Self> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/verses.txt");
        let file = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let words = file.lines().filter_map(|line| line.split_once('\t')).map(|(_, words)| words);
        let text: Vec<char> = words.flat_map(|words| words.chars().chain(['\n'])).collect();
        let mut alphabet = text.clone();
        alphabet.sort_unstable();
        alphabet.dedup();
        let place = |character| alphabet.binary_search(character).expect("its own alphabet") as u32;
        let characters: Vec<u32> = text.iter().map(place).collect();
        let held_out = characters.len() / 10 * 9;
        Ok(Self { characters, alphabet, held_out })
    }
}

impl Task for Text {
    fn vocabulary(&self) -> u32 {
        self.alphabet.len() as u32
    }

    fn batch(&self, count: u32, len: u32, rng: &mut StdRng) -> Batch {
        let len = len as usize;
        let starts: Vec<usize> = (0..count).map(|_| rng.random_range(0..self.held_out - len - 1)).collect();
        let from = |first: usize| starts.iter().flat_map(move |start| &self.characters[start + first..][..len]);
        Batch { tokens: from(0).copied().collect(), labels: from(1).copied().collect() }
    }

    fn held_out(&self, windows: Range<u32>, judged: &Judged) -> Batch {
        let [len, targets, longest] = [judged.len, judged.targets, judged.longest].map(|tokens| tokens as usize);
        // Windows are spread over all that is held out, and no target is asked twice.
        let last = self.characters.len() - 1;
        let stride = (last - longest - self.held_out) / judged.windows as usize;
        assert!(stride >= targets, "more windows than there is text");
        let (mut tokens, mut labels) = (Vec::new(), Vec::new());
        for window in windows {
            let end = last - window as usize * stride;
            tokens.extend_from_slice(&self.characters[end - len..end]);
            labels.extend(std::iter::repeat_n(NONE, len - targets));
            labels.extend_from_slice(&self.characters[end + 1 - targets..=end]);
        }
        Batch { tokens, labels }
    }
}

/// Max-retrieval: every token is a rank and a colour, and behind each the colour of the highest rank so far is asked for. In a sequence, tokens
/// of one rank have one colour.
/// Source: Veličković et al., "softmax is not enough (for sharp size generalisation)", 2024, section 2.
pub struct Retrieval;

impl Retrieval {
    const RANKS: u32 = 24;
    const COLOURS: u32 = 4;

    /// Asked behind the last `targets` tokens.
    fn sequences(count: u32, len: u32, targets: u32, rng: &mut StdRng) -> Batch {
        let (mut tokens, mut labels) = (Vec::new(), Vec::new());
        for _ in 0..count {
            let most = rng.random_range(Self::RANKS / 2..Self::RANKS);
            let colours: Vec<u32> = (0..=most).map(|_| rng.random_range(0..Self::COLOURS)).collect();
            let mut highest = 0;
            for i in 0..len {
                let rank = rng.random_range(0..=most);
                highest = highest.max(rank);
                tokens.push(rank * Self::COLOURS + colours[rank as usize]);
                labels.push(if i + targets < len { NONE } else { colours[highest as usize] });
            }
        }
        Batch { tokens, labels }
    }
}

impl Task for Retrieval {
    fn vocabulary(&self) -> u32 {
        Self::RANKS * Self::COLOURS
    }

    fn batch(&self, count: u32, len: u32, rng: &mut StdRng) -> Batch {
        Self::sequences(count, len, len, rng)
    }

    fn held_out(&self, windows: Range<u32>, judged: &Judged) -> Batch {
        let mut rng: StdRng = rand::SeedableRng::seed_from_u64(0x5eed ^ u64::from(windows.start) << 32);
        Self::sequences(windows.len() as u32, judged.len, judged.targets, &mut rng)
    }
}

/// Cosine and sine of the angle of each position and pair of neighbours, of which a head has `dim` / 2.
pub fn turns(positions: Positions, len: u32, trained: u32, dim: u32) -> Vec<[f32; 2]> {
    let pairs = dim / 2;
    // λ_1 … λ_i = exp(a i^0.625), and all of them together what the length has grown by.
    let growth = if positions == Positions::NtkMixed { f64::from(len.max(trained)) / f64::from(trained) } else { 1.0 };
    let a = growth.ln() / f64::from(pairs).powf(0.625);
    let angle = |position: u32, pair: u32| {
        let slower = (a * f64::from(pair + 1).powf(0.625)).exp();
        f64::from(position) * 10_000f64.powf(-2.0 * f64::from(pair) / f64::from(dim)) / slower
    };
    let turn = |position, pair| match positions {
        Positions::None => [1.0, 0.0],
        _ => [angle(position, pair).cos() as f32, angle(position, pair).sin() as f32],
    };
    (0..len).flat_map(|position| (0..pairs).map(move |pair| turn(position, pair))).collect()
}
