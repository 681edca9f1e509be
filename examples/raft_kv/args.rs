//! The command line of the example; nothing to copy here.

use std::error::Error;

use mainstay::ident::NodeId;

/// The command line: words, and options that take a value each.
pub struct Args {
    words: Vec<String>,
    options: Vec<(String, String)>,
}

impl Args {
    pub fn parse(mut given: impl Iterator<Item = String>) -> Result<Args, Box<dyn Error>> {
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

    /// The nodes of `--peer NODE=ADDRESS`, or `--known`.
    pub fn peers(&self, name: &str) -> Result<Vec<(NodeId, String)>, Box<dyn Error>> {
        let given = self.options.iter().filter(|(option, _)| option == name);
        let peer = |value: &String| -> Result<(NodeId, String), Box<dyn Error>> {
            let (node, address) = value.split_once('=').ok_or("--peer and --known take NODE=ADDRESS")?;
            Ok((NodeId::new(node.parse()?), address.to_owned()))
        };
        given.map(|(_, value)| peer(value)).collect()
    }
}
