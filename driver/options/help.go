package options

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

const helpWidth = 100

// Help is the table of options for a terminal, at most 100 columns wide.
func Help() string {
	var b strings.Builder
	b.WriteString("Options of docker volume create -d blockvol -o NAME=VALUE ... VOLUME\n")
	b.WriteString("(letter case, - and _ in names do not matter)\n\n")
	width := 0
	for _, opt := range table {
		width = max(width, len(opt.Name))
	}
	for _, opt := range table {
		text := opt.Doc
		if opt.Values != "" {
			text += " Values: " + opt.Values + "."
		}
		if opt.Default != "" {
			text += " Default: " + opt.Default + "."
		}
		if opt.Changeable {
			text += " Can be changed later."
		}
		if len(opt.Aliases) > 0 {
			text += " Also: " + strings.Join(opt.Aliases, ", ") + "."
		}
		for i, line := range wrap(text, helpWidth-width-4) {
			name := ""
			if i == 0 {
				name = opt.Name
			}
			fmt.Fprintf(&b, "  %-*s  %s\n", width, name, line)
		}
	}
	b.WriteString("\nVolume types\n\n")
	rows := limitRows()
	for _, row := range rows {
		line := " "
		for i, cell := range row {
			wide := 0
			for _, r := range rows {
				wide = max(wide, len(r[i]))
			}
			line += fmt.Sprintf(" %-*s ", wide, cell)
		}
		b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
	return b.String()
}

// Markdown is the same table for docs/options.md, made so that the page cannot differ from what the code does.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| option | values | default | meaning | can be changed | also written |\n|---|---|---|---|---|---|\n")
	for _, opt := range table {
		def := opt.Default
		if def != "" {
			def = "`" + def + "`"
		}
		var aliases []string
		for _, a := range opt.Aliases {
			aliases = append(aliases, "`"+a+"`")
		}
		changeable := "no"
		if opt.Changeable {
			changeable = "yes"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s | %s |\n", opt.Name, opt.Values, def, opt.Doc, changeable, strings.Join(aliases, ", "))
	}
	b.WriteString("\n")
	for i, row := range limitRows() {
		fmt.Fprintf(&b, "| %s |\n", strings.Join(row, " | "))
		if i == 0 {
			b.WriteString("|" + strings.Repeat("---|", len(row)) + "\n")
		}
	}
	return b.String()
}

// limitRows is the table of volume types, the first row being its head.
func limitRows() [][]string {
	rows := [][]string{{"type", "size in GiB", "iops", "throughput in MiB/s"}}
	for _, l := range types {
		iops, mibs := "-", "-"
		if l.maxIOPS > 0 {
			iops = fmt.Sprintf("%d-%d, at most %d per GiB", l.minIOPS, l.maxIOPS, l.iopsPerGiB)
			if l.baseIOPS > 0 {
				iops += fmt.Sprintf(" (%d always)", l.baseIOPS)
			} else {
				iops += ", required"
			}
		}
		if l.maxMiBs > 0 {
			mibs = fmt.Sprintf("%d-%d, 1 per %d IOPS", l.minMiBs, l.maxMiBs, l.iopsPerMiBs)
		}
		rows = append(rows, []string{l.name, fmt.Sprintf("%d-%d", l.minGiB, l.maxGiB), iops, mibs})
	}
	return rows
}

// wrap breaks text at spaces into lines of at most width, longer words excepted.
func wrap(text string, width int) []string {
	var lines []string
	line := ""
	for _, w := range strings.Fields(text) {
		if line != "" && len(line)+1+len(w) > width {
			lines = append(lines, line)
			line = ""
		}
		if line != "" {
			line += " "
		}
		line += w
	}
	return append(lines, line)
}

func sortedTags(tags map[string]string) []string {
	return slices.Sorted(maps.Keys(tags))
}
