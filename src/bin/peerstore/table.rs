//! A table that fits the terminal, written row by row: nothing is kept to find out how wide a column must be.

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// One column.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    pub title: &'static str,
    /// So wide, with what does not fit cut; the last column takes what is left.
    pub width: usize,
    pub right: bool,
    /// Which end is kept when it is cut.
    pub keep_end: bool,
}

impl Column {
    pub const fn left(title: &'static str, width: usize) -> Self {
        Self {
            title,
            width,
            right: false,
            keep_end: false,
        }
    }

    pub const fn right(title: &'static str, width: usize) -> Self {
        Self {
            right: true,
            ..Self::left(title, width)
        }
    }
}

const GAP: usize = 2;

/// Columns, of which the first ones are shown that fit. Without a width nothing is cut.
#[derive(Debug)]
pub struct Table {
    columns: Vec<Column>,
    cuts: bool,
}

impl Table {
    pub fn new(columns: &[Column], width: Option<usize>) -> Self {
        let Some(width) = width else {
            return Self {
                columns: columns.to_vec(),
                cuts: false,
            };
        };
        let mut fitting: Vec<Column> = Vec::new();
        let mut used = 0;
        for column in columns {
            let gap = if fitting.is_empty() { 0 } else { GAP };
            let left = width.saturating_sub(used + gap);
            // A sliver of a column says nothing.
            if left < column.width && !fitting.is_empty() {
                break;
            }
            let column = Column {
                width: column.width.min(left),
                ..*column
            };
            used += gap + column.width;
            fitting.push(column);
        }
        if let Some(last) = fitting.last_mut().filter(|last| !last.right) {
            last.width += width.saturating_sub(used);
        }
        Self {
            columns: fitting,
            cuts: true,
        }
    }

    pub fn titles(&self) -> String {
        let titles = self.columns.iter().map(|column| column.title.to_owned());
        self.row(titles, |_, text| text.to_owned())
    }

    /// A row; `style` gets the number of the column and its text, cut and padded.
    pub fn row(
        &self,
        cells: impl IntoIterator<Item = String>,
        style: impl Fn(usize, &str) -> String,
    ) -> String {
        let mut row = String::new();
        let last = self.columns.len().saturating_sub(1);
        for (at, (column, cell)) in self.columns.iter().zip(cells).enumerate() {
            let cell = match self.cuts {
                true if column.keep_end => cut_start(&cell, column.width),
                true => cut(&cell, column.width),
                false => cell,
            };
            let padding = " ".repeat(column.width.saturating_sub(cell.width()));
            if at > 0 {
                row.push_str(&" ".repeat(GAP));
            }
            let styled = style(at, &cell);
            match (column.right, at == last) {
                (true, _) => row.extend([padding.as_str(), styled.as_str()]),
                (false, true) => row.push_str(&styled),
                (false, false) => row.extend([styled.as_str(), padding.as_str()]),
            }
        }
        row.trim_end().to_owned()
    }
}

/// As much of the beginning as fits, with a mark that there was more.
pub fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let kept = fitting(text.chars(), width);
    kept.into_iter().chain(mark(width)).collect()
}

/// As [`cut`], with the end kept.
pub fn cut_start(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let kept = fitting(text.chars().rev(), width);
    mark(width)
        .into_iter()
        .chain(kept.into_iter().rev())
        .collect()
}

fn mark(width: usize) -> Option<char> {
    (width > 0).then_some('…')
}

fn fitting(chars: impl Iterator<Item = char>, width: usize) -> Vec<char> {
    let mut left = width.saturating_sub(1);
    chars
        .take_while(|c| {
            let needed = c.width().unwrap_or(0);
            let fits = needed <= left;
            left = left.saturating_sub(needed);
            fits
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cut_is_never_wider_than_it_may_be() {
        for text in [
            "",
            "abc",
            "日本語テキスト",
            "a日b本c",
            "e\u{301}e\u{301}e\u{301}",
        ] {
            for width in 0..12 {
                assert!(cut(text, width).width() <= width, "{text} {width}");
                assert!(cut_start(text, width).width() <= width, "{text} {width}");
            }
            assert_eq!(cut(text, 100), text);
        }
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut_start("abcdef", 4), "…def");
    }

    #[test]
    fn a_row_is_as_wide_as_the_terminal_at_most() {
        let columns = [
            Column::left("PEER", 11),
            Column::right("N", 4),
            Column::left("ADDRESS", 20),
        ];
        for width in 1..80 {
            let table = Table::new(&columns, Some(width));
            let cells = ["a".repeat(60), "1234567".into(), "b".repeat(90)];
            assert!(table.titles().width() <= width);
            assert!(table.row(cells, |_, text| text.to_owned()).width() <= width);
        }
    }
}
