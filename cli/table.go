package cli

import (
	"bufio"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

const (
	columnGap = 2
	narrowest = 6 // a column is not cut below this
)

// printTable writes lines of cells, which tabs separate, so that the columns line up. Where they do not fit into width, the widest are cut;
// 0 is any width.
func printTable(out io.Writer, lines []string, width int) error {
	rows, widths := columnsOf(lines)
	fit(widths, width)
	w := bufio.NewWriter(out)
	for _, row := range rows {
		var line strings.Builder
		for i, cell := range row {
			cell = shorten(cell, widths[i])
			line.WriteString(cell)
			line.WriteString(strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+columnGap))
		}
		w.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
	return w.Flush()
}

// columnsOf splits lines into cells, and tells how wide each column is.
func columnsOf(lines []string) (rows [][]string, widths []int) {
	rows = make([][]string, len(lines))
	for n, line := range lines {
		rows[n] = strings.Split(line, "\t")
		for i, cell := range rows[n] {
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	return rows, widths
}

// widthOf is how wide a table of these lines is, if nothing of it is cut.
func widthOf(lines []string) int {
	_, widths := columnsOf(lines)
	total := columnGap * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	return total
}

// fit makes the widest columns narrower until all of them fit.
func fit(widths []int, width int) {
	if width <= 0 {
		return
	}
	total := columnGap * (len(widths) - 1)
	for _, w := range widths {
		total += w
	}
	for ; total > width; total-- {
		widest := 0
		for i, w := range widths {
			if w > widths[widest] {
				widest = i
			}
		}
		if widths[widest] <= narrowest {
			return
		}
		widths[widest]--
	}
}

// shorten cuts a text to a number of letters, and shows that it was cut.
func shorten(s string, n int) string {
	if utf8.RuneCountInString(s) <= n {
		return s
	}
	return string([]rune(s)[:n-1]) + "…"
}

// terminalWidth is the number of columns of the terminal that out is, or 0 if it is none.
func terminalWidth(out io.Writer) int {
	f, ok := out.(*os.File)
	if !ok {
		return 0
	}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}
