//! Reads keys of a TOML table, with the line of everything.

use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Problem, VmTomlError};
use crate::values;

/// The most changed letters at which a key still counts as a slip of another.
const MAX_SLIPS: usize = 3;

/// A file and its text.
pub(crate) struct Document<'t> {
    file: &'t Path,
    text: &'t str,
}

/// A value and its line.
#[derive(Debug)]
pub(crate) struct At<T> {
    pub(crate) line: usize,
    pub(crate) value: T,
}

/// One table, whose keys are all known.
pub(crate) struct Table<'a, 't> {
    document: &'a Document<'t>,
    table: &'a DeTable<'t>,
    /// The table as the file writes it, such as `[[net]]`; empty at the top.
    name: String,
    /// The line of its heading.
    pub(crate) line: usize,
}

impl<'t> Document<'t> {
    pub(crate) fn new(file: &'t Path, text: &'t str) -> Self {
        Self { file, text }
    }

    pub(crate) fn syntax(&self) -> Result<Spanned<DeTable<'t>>, VmTomlError> {
        DeTable::parse(self.text).map_err(|error| VmTomlError {
            file: self.file.to_path_buf(),
            line: error.span().map(|span| self.line(span.start)),
            problem: Problem::Syntax(error.message().to_owned()),
        })
    }

    fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        1 + before.filter(|byte| **byte == b'\n').count()
    }

    fn error(&self, line: Option<usize>, problem: Problem) -> VmTomlError {
        VmTomlError {
            file: self.file.to_path_buf(),
            line,
            problem,
        }
    }

    pub(crate) fn root<'a>(
        &'a self,
        parsed: &'a Spanned<DeTable<'t>>,
        known: &[&str],
    ) -> Result<Table<'a, 't>, VmTomlError> {
        self.checked(parsed.get_ref(), String::new(), 1, known)
    }

    /// The table `[key]`, if it is there.
    pub(crate) fn table<'a>(
        &'a self,
        parent: &Table<'a, 't>,
        key: &'static str,
        known: &[&str],
    ) -> Result<Option<Table<'a, 't>>, VmTomlError> {
        let Some(found) = parent.table.get(key) else {
            return Ok(None);
        };
        let line = self.line(found.span().start);
        let DeValue::Table(table) = found.get_ref() else {
            return Err(parent.wrong_type(found, key, "a table"));
        };
        self.checked(table, format!("[{key}]"), line, known)
            .map(Some)
    }

    /// The tables `[[key]]`, in order.
    pub(crate) fn tables<'a>(
        &'a self,
        parent: &Table<'a, 't>,
        key: &'static str,
        known: &[&str],
    ) -> Result<Vec<Table<'a, 't>>, VmTomlError> {
        let Some(found) = parent.table.get(key) else {
            return Ok(Vec::new());
        };
        let expected = match key {
            "net" => "a list of tables ([[net]])",
            "disk" => "a list of tables ([[disk]])",
            _ => "a list of tables ([[node]])",
        };
        let DeValue::Array(array) = found.get_ref() else {
            return Err(parent.wrong_type(found, key, expected));
        };
        array
            .iter()
            .map(|element| {
                let DeValue::Table(table) = element.get_ref() else {
                    return Err(parent.wrong_type(element, key, expected));
                };
                let line = self.line(element.span().start);
                self.checked(table, format!("[[{key}]]"), line, known)
            })
            .collect()
    }

    fn checked<'a>(
        &'a self,
        table: &'a DeTable<'t>,
        name: String,
        line: usize,
        known: &[&str],
    ) -> Result<Table<'a, 't>, VmTomlError> {
        let unknown = table
            .keys()
            .filter(|key| !known.contains(&key.get_ref().as_ref()));
        // The first in the file: the table itself is sorted by key.
        if let Some(key) = unknown.min_by_key(|key| key.span().start) {
            let hint = match nearest(key.get_ref(), known) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("known are {}", known.join(", ")),
            };
            let problem = Problem::UnknownKey {
                key: key.get_ref().to_string(),
                place: place(&name),
                hint,
            };
            return Err(self.error(Some(self.line(key.span().start)), problem));
        }
        Ok(Table {
            document: self,
            table,
            name,
            line,
        })
    }
}

impl<'a, 't> Table<'a, 't> {
    pub(crate) fn string(&self, key: &'static str) -> Result<Option<At<&'a str>>, VmTomlError> {
        let table: &'a DeTable<'t> = self.table;
        let Some(found) = table.get(key) else {
            return Ok(None);
        };
        match found.get_ref() {
            DeValue::String(text) => Ok(Some(At {
                line: self.line_at(found),
                value: text,
            })),
            _ => Err(self.wrong_type(found, key, "a string")),
        }
    }

    /// One of a few words; the first of them if there is none.
    pub(crate) fn choice<T: Copy, const N: usize>(
        &self,
        key: &'static str,
        choices: [(&str, T); N],
    ) -> Result<T, VmTomlError> {
        let Some(text) = self.string(key)? else {
            return Ok(choices[0].1);
        };
        match choices.iter().find(|(word, _)| *word == text.value) {
            Some((_, value)) => Ok(*value),
            None => {
                let words = choices.map(|(word, _)| format!("{word:?}"));
                Err(self.value_at(text.line, key, text.value, &words.join(" or ")))
            }
        }
    }

    pub(crate) fn boolean(&self, key: &'static str) -> Result<Option<bool>, VmTomlError> {
        match self.table.get(key) {
            None => Ok(None),
            Some(found) => match found.get_ref() {
                DeValue::Boolean(value) => Ok(Some(*value)),
                _ => Err(self.wrong_type(found, key, "true or false")),
            },
        }
    }

    /// A string that can be part of a path.
    pub(crate) fn name(&self, key: &'static str) -> Result<Option<At<&'a str>>, VmTomlError> {
        let Some(text) = self.string(key)? else {
            return Ok(None);
        };
        if values::is_name(text.value) {
            return Ok(Some(text));
        }
        Err(self.value_at(text.line, key, text.value, values::NAME_EXPECTED))
    }

    /// A path, relative to the file's directory.
    pub(crate) fn path(&self, key: &'static str) -> Result<Option<At<PathBuf>>, VmTomlError> {
        let Some(text) = self.string(key)? else {
            return Ok(None);
        };
        if text.value.is_empty() || text.value.contains('\0') {
            return Err(self.value_at(text.line, key, text.value, "a path"));
        }
        Ok(Some(At {
            line: text.line,
            value: self.relative(text.value),
        }))
    }

    pub(crate) fn relative(&self, path: &str) -> PathBuf {
        self.document
            .file
            .parent()
            .unwrap_or(Path::new(""))
            .join(path)
    }

    pub(crate) fn integer(
        &self,
        key: &'static str,
        min: u64,
        max: u64,
    ) -> Result<Option<At<u64>>, VmTomlError> {
        let Some(found) = self.table.get(key) else {
            return Ok(None);
        };
        let DeValue::Integer(integer) = found.get_ref() else {
            return Err(self.wrong_type(found, key, "a whole number"));
        };
        let line = self.line_at(found);
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(value) if (min..=max).contains(&value) => Ok(Some(At { line, value })),
            _ => Err(self.number_at(line, key, integer, format!("{min} to {max}"))),
        }
    }

    /// A size of memory: a string such as `"256M"`, or bytes.
    pub(crate) fn memory(&self, key: &'static str) -> Result<Option<u64>, VmTomlError> {
        let Some(found) = self.table.get(key) else {
            return Ok(None);
        };
        let line = self.line_at(found);
        let expected = values::MEMORY_EXPECTED;
        match found.get_ref() {
            DeValue::String(text) => values::memory_bytes(text)
                .map(Some)
                .ok_or_else(|| self.value_at(line, key, text, expected)),
            DeValue::Integer(integer) => u64::from_str_radix(integer.as_str(), integer.radix())
                .ok()
                .filter(|bytes| values::is_memory(*bytes))
                .map(Some)
                .ok_or_else(|| self.number_at(line, key, integer, expected.to_owned())),
            _ => Err(self.wrong_type(found, key, "a size such as \"256M\", or bytes")),
        }
    }

    /// Bytes of a disk: whole sectors.
    pub(crate) fn disk_size(&self, key: &'static str) -> Result<Option<u64>, VmTomlError> {
        let Some(text) = self.string(key)? else {
            return Ok(None);
        };
        match values::disk_bytes(text.value) {
            Some(bytes) => Ok(Some(bytes)),
            None => Err(self.value_at(text.line, key, text.value, values::DISK_EXPECTED)),
        }
    }

    pub(crate) fn line_of(&self, key: &str) -> Option<usize> {
        self.table.get(key).map(|found| self.line_at(found))
    }

    fn line_at(&self, found: &Spanned<DeValue<'_>>) -> usize {
        self.document.line(found.span().start)
    }

    pub(crate) fn missing(&self, key: &'static str) -> VmTomlError {
        let line = (!self.name.is_empty()).then_some(self.line);
        self.document.error(
            line,
            Problem::Missing {
                key,
                place: place(&self.name),
            },
        )
    }

    pub(crate) fn conflict(&self, line: Option<usize>, problem: String) -> VmTomlError {
        self.document.error(line, Problem::Conflict(problem))
    }

    pub(crate) fn value_at(
        &self,
        line: usize,
        key: &'static str,
        found: &str,
        expected: &str,
    ) -> VmTomlError {
        let problem = Problem::Value {
            key,
            found: format!("{found:?}"),
            expected: expected.to_owned(),
        };
        self.document.error(Some(line), problem)
    }

    fn number_at(
        &self,
        line: usize,
        key: &'static str,
        found: &impl ToString,
        expected: String,
    ) -> VmTomlError {
        let problem = Problem::Value {
            key,
            found: found.to_string(),
            expected,
        };
        self.document.error(Some(line), problem)
    }

    fn wrong_type(
        &self,
        found: &Spanned<DeValue<'_>>,
        key: &'static str,
        expected: &'static str,
    ) -> VmTomlError {
        let kind = match found.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a whole number",
            DeValue::Float(_) => "a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        let problem = Problem::WrongType {
            key,
            expected,
            found: kind,
        };
        self.document.error(Some(self.line_at(found)), problem)
    }
}

fn place(name: &str) -> String {
    if name.is_empty() {
        String::new()
    } else {
        format!(" in {name}")
    }
}

/// The known key that `key` is most likely a slip of.
fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let key = key.to_lowercase().replace('-', "_");
    known
        .iter()
        .map(|name| (slips(&key, name), *name))
        .min()
        .filter(|(slips, name)| *slips <= MAX_SLIPS && *slips < name.len().max(2) - 1)
        .map(|(_, name)| name)
}

/// How many letters must be put in, taken out or changed to turn `a` into `b`.
fn slips(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let changed = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
