//! Verses of four books with their chapters, and what a frozen model makes of them (data/README.md).

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use safetensors::SafeTensors;
use wgpu_attention::half::f16;

pub struct Verses {
    /// Where each stands, and its words.
    pub lines: Vec<(String, String)>,
    /// `[verses, WIDTH]`, each of norm 1.
    pub features: Vec<f32>,
    /// The chapter of each, counted from 0 through all books.
    pub chapters: Vec<u32>,
}

/// Numbers a verse.
pub const WIDTH: usize = 384;

impl Verses {
    pub fn load() -> Result<Self> {
        let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
        let read = |name: &str| std::fs::read(data.join(name)).with_context(|| format!("data/{name}"));
        let (text, file) = (String::from_utf8(read("verses.txt")?)?, read("verses.safetensors")?);
        let lines: Vec<_> = text
            .lines()
            .filter_map(|line| line.split_once('\t'))
            .map(|(place, words)| (place.to_owned(), words.to_owned()))
            .collect();
        let tensors = SafeTensors::deserialize(&file)?;
        let features = tensors.tensor("features")?.data().chunks_exact(2);
        let features: Vec<f32> = features.map(|bytes| f16::from_le_bytes([bytes[0], bytes[1]]).to_f32()).collect();
        let chapters = tensors.tensor("chapter")?.data().chunks_exact(4);
        let chapters: Vec<u32> = chapters.map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
        let verses = Self { lines, features, chapters };
        let counts = [verses.lines.len(), verses.features.len() / WIDTH];
        ensure!(
            counts == [verses.chapters.len(); 2],
            "data/verses.txt and data/verses.safetensors do not fit together"
        );
        Ok(verses)
    }

    /// Those to learn from, and those of every fifth chapter.
    pub fn split(&self) -> (Vec<usize>, Vec<usize>) {
        (0..self.lines.len()).partition(|&verse| self.chapters[verse] % 5 != 4)
    }

    pub fn feature(&self, verse: usize) -> &[f32] {
        &self.features[verse * WIDTH..][..WIDTH]
    }
}
