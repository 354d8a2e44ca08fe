//! The classes: common words, without those that only join others.

use std::collections::BTreeMap;

use crate::verses::Verses;

const FUNCTION_WORDS: &str = "\
    a about above after again against all also am among an and any are art as at away be because become been before behold being \
    beside between both but by came can cause come cometh could day days did didst do done down every even for forth from gave give \
    go good great had hast hath have having he her him himself his how i if in into is it its let made make man may me men might \
    mine more most much must my neither no nor not now o of off on one or other our out over own put said saith same saw say saying \
    see seen set shall shalt she should so some spake speak such take than that the thee their them then there therefore these they \
    thine thing things this those thou thou thus thy till to together took two unto up upon us very was we went were what when where \
    wherefore which while who whom whose why will wilt with would ye yea yet you your";

pub struct Words {
    count: usize,
    /// `[verses, count]`, 1 where the verse holds the word.
    labels: Vec<f32>,
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|c: char| !c.is_alphabetic()).filter(|word| word.len() > 1).map(str::to_lowercase)
}

impl Words {
    /// Those that most verses hold.
    pub fn commonest(verses: &Verses, count: usize) -> Self {
        let joining: Vec<&str> = FUNCTION_WORDS.split_whitespace().collect();
        let mut held: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (verse, (_, text)) in verses.lines.iter().enumerate() {
            for word in words(text).filter(|word| !joining.contains(&word.as_str())) {
                let places = held.entry(word).or_default();
                if places.last() != Some(&verse) {
                    places.push(verse);
                }
            }
        }
        let mut common: Vec<_> = held.into_values().collect();
        common.sort_by_key(|places| std::cmp::Reverse(places.len()));
        common.truncate(count);
        let mut labels = vec![0.0; verses.lines.len() * count];
        for (class, places) in common.iter().enumerate() {
            places.iter().for_each(|verse| labels[verse * count + class] = 1.0);
        }
        Self { count, labels }
    }

    pub fn count(&self) -> usize {
        self.count
    }

    pub fn labels(&self, verse: usize) -> &[f32] {
        &self.labels[verse * self.count..][..self.count]
    }

    /// How many of the words a verse holds.
    pub fn mean_labels(&self, verses: &[usize]) -> f64 {
        let held = verses.iter().flat_map(|&verse| self.labels(verse)).map(|&label| f64::from(label));
        held.sum::<f64>() / verses.len() as f64
    }

    /// How many verses hold the word that fewest do.
    pub fn rarest(&self, verses: &[usize]) -> usize {
        let held = |class: usize| verses.iter().filter(|&&verse| self.labels(verse)[class] > 0.5).count();
        (0..self.count).map(held).min().unwrap_or(0)
    }
}
