package view

import (
	"context"
	"fmt"
	"strings"
	"time"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/container"
	"fyne.io/fyne/v2/theme"
	"github.com/covedesk/cove/ui/model"
)

// imagesPage lists the images.
type imagesPage struct {
	listPage
	list []model.Image
}

func newImagesPage(w *Window) *imagesPage {
	p := &imagesPage{}
	t := newTable(w, 2,
		col{title: wordName, share: 1.6, sort: model.ByName},
		col{title: wordUsedBy, share: 1, from: 620},
		col{title: wordSize, width: 104, right: true, sort: model.BySize},
		col{title: wordCreated, width: 140, sort: model.ByCreated, from: 560})
	t.open = func(key string) {
		if i := p.named(key); i != nil {
			w.runDialog(model.Run{Image: i.Name()})
		}
	}
	t.delete = func(key string) { p.remove(key) }
	p.init(w, wordImages, wordSearchImages, []string{wordAll, wordInUse, wordUnused}, t,
		newButton(w, "eraser", wordPrune, plain, p.prune), newButton(w, "download", wordPull, primary, func() { w.pullDialog("") }))
	p.again = p.refresh
	p.query.Sort, t.sort = model.ByName, model.ByName
	p.line.text.set("docker images")
	return p
}

func (p *imagesPage) named(key string) *model.Image {
	for i := range p.list {
		if p.list[i].Key() == key {
			return &p.list[i]
		}
	}
	return nil
}

func (p *imagesPage) shown()       { p.table.last = nil }
func (p *imagesPage) hidden()      {}
func (p *imagesPage) escape() bool { return false }
func (p *imagesPage) press(e *fyne.KeyEvent) bool {
	if p.state == "list" && (e.Name == fyne.KeyDown || e.Name == fyne.KeyUp) {
		p.w.focus(p.table.body)
		return true
	}
	return false
}

func (p *imagesPage) refresh() {
	all := p.w.store.Images()
	p.list = model.ListImages(all, p.query)
	sub := " "
	if len(all) > 0 {
		sub = countOf(len(all), "image", "images")
		if len(p.list) < len(all) {
			sub = fmt.Sprintf("%d of %s", len(p.list), sub)
		}
	}
	for _, pull := range p.w.store.Pulls() {
		s := p.w.store.Seen(pull)
		sub += fmt.Sprintf("  ·  pulling %s, %.0f %%", s.Ref, s.Share()*100)
	}
	p.sub.set(sub)
	if !p.fill(len(all), len(p.list), p.nothing) {
		return
	}
	now := p.w.now()
	var lines []line
	for _, i := range p.list {
		name := i.Ref
		if name == "" {
			name = "without a name"
		}
		users := wordNone
		if len(i.Users) > 0 {
			users = strings.Join(i.Users, ", ")
		}
		created := model.Ago(i.Created, now)
		if created == "" {
			created = wordNone
		}
		l := line{key: i.Key(), dot: true, tone: model.Quiet, cells: []cell{
			{text: model.Plain(name), sub: i.Short(), mono: true, bold: true, colour: theme.ColorNameForeground},
			{text: model.Plain(users), colour: muted}, {text: model.Bytes(i.Size), colour: theme.ColorNameForeground}, {text: created, colour: muted}}}
		if len(i.Users) > 0 {
			l.tone = model.Good
		}
		l.acts = []act{{icon: "play", tip: wordRun, do: func() { p.w.runDialog(model.Run{Image: i.Name()}) }},
			{icon: "trash-2", tip: wordRemove, danger: true, do: func() { p.remove(i.Key()) }}}
		lines = append(lines, l)
	}
	p.table.set(lines)
}

func (p *imagesPage) nothing() fyne.CanvasObject {
	return empty("layers", wordNoImages, wordNoImagesHint, newCommand(p.w, wordExamplePull),
		container.NewCenter(newButton(p.w, "", "Pull this", primary, func() { p.w.pullDialog("alpine:3") })))
}

func (p *imagesPage) remove(key string) {
	i := p.named(key)
	if i == nil {
		return
	}
	name, line := i.Name(), model.RemoveImageCommand(i.Name())
	if len(i.Users) > 0 {
		p.w.explain("“"+model.Plain(name)+"” is in use", "Containers are made from it: "+model.Plain(strings.Join(i.Users, ", "))+". Remove them first.")
		return
	}
	p.w.confirm("Remove “"+model.Plain(name)+"”?", "It can be pulled or built again. If it has other names, only this one goes.", wordRemove, line, func() {
		p.line.text.set(line)
		p.w.store.RemoveImages(name)
	})
}

// prune asks the engine first what it would free.
func (p *imagesPage) prune() {
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		u, err := p.w.store.Prunable(ctx)
		p.w.do(func() {
			switch {
			case err != nil:
				p.w.toast(model.Notice{Tone: model.Bad, Title: "The engine could not say what is unused", Text: err.Error()})
			case u.Images == 0:
				p.w.toast(model.Notice{Tone: model.Good, Title: "Nothing to remove", Text: "Every image is used by a container."})
			default:
				p.w.confirm("Remove unused images?", fmt.Sprintf("%s that no container uses, about %s. They can be pulled or built again.", countOf(u.Images, "image", "images"), model.Bytes(u.Bytes)),
					"Remove them", model.PruneCommand, func() { p.line.text.set(model.PruneCommand); p.w.store.Prune() })
			}
		})
	}()
}
