//! Colours where there is a terminal, the same words where there is none.

/// Whether colours are used.
pub struct Style {
    colours: bool,
}

impl Style {
    /// With colours.
    pub fn coloured() -> Self {
        Self { colours: true }
    }

    /// Without.
    pub fn plain() -> Self {
        Self { colours: false }
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }

    /// As expected.
    pub fn good(&self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Stopped, as it was meant to be.
    pub fn warn(&self, text: &str) -> String {
        self.paint("33", text)
    }

    /// Not as expected.
    pub fn bad(&self, text: &str) -> String {
        self.paint("1;31", text)
    }

    /// For what matters less.
    pub fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    /// For what matters.
    pub fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }
}

/// A text of at most so many characters.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_string();
    }
    let mut short: String = text.chars().take(width.saturating_sub(1)).collect();
    short.push('…');
    short
}
