//! The command line of the example; nothing to copy here.

use std::num::NonZeroU64;

use mainstay::ident::NodeId;

use crate::groups::Failure;

/// The command line: words, and options that take a value each.
pub struct Args {
    words: Vec<String>,
    options: Vec<(String, String)>,
}

impl Args {
    pub fn parse(mut given: impl Iterator<Item = String>) -> Result<Args, Failure> {
        let mut args = Args { words: Vec::new(), options: Vec::new() };
        while let Some(word) = given.next() {
            match word.strip_prefix("--") {
                Some(name) => {
                    let value = given.next().ok_or_else(|| format!("--{name} takes a value"))?;
                    args.options.push((name.to_owned(), value));
                }
                None => args.words.push(word),
            }
        }
        Ok(args)
    }

    pub fn word(&self, place: usize) -> Result<&str, String> {
        self.words.get(place).map(String::as_str).ok_or_else(|| "a word is missing; see the top of main.rs".to_owned())
    }

    pub fn required(&self, name: &str) -> Result<&str, String> {
        let found = self.options.iter().find(|(option, _)| option == name);
        found.map(|(_, value)| value.as_str()).ok_or_else(|| format!("--{name} is required"))
    }

    pub fn number(&self, name: &str) -> Result<Option<NonZeroU64>, Failure> {
        let number = |given: &str| given.parse().map_err(|error| format!("--{name} {given}: {error}"));
        Ok(self.required(name).ok().map(number).transpose()?)
    }

    /// The nodes of `--peer NODE=ADDRESS`, or `--known`.
    pub fn peers(&self, name: &str) -> Result<Vec<(NodeId, String)>, Failure> {
        let given = self.options.iter().filter(|(option, _)| option == name);
        let peer = |value: &String| -> Result<(NodeId, String), Failure> {
            let (node, address) = value.split_once('=').ok_or("--peer and --known take NODE=ADDRESS")?;
            Ok((NodeId::new(node.parse()?), address.to_owned()))
        };
        given.map(|(_, value)| peer(value)).collect()
    }
}
